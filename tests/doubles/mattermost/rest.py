"""REST version 4, as far as posting and reading back need it (contract A7)."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .access import COOKIE, answer, authenticate, forbidden, may_read, readable_channel
from .files import attach, upload
from .state import Channel, Post, State, User
from .text import find_mentions
from .wire import (
    AppError,
    cut_connection,
    error_response,
    finish,
    idle,
    read_body,
    save_after_drop,
)

_SINCE_LIMIT = 1000


async def rest(state: State, request: Request) -> Response:
    """Any call below ``/api/v4``; what is not here is 404 in JSON."""
    try:
        return await _dispatch(state, request)
    except AppError as error:
        told = error_response(state, error)
        if error.status == 401:
            told.set_cookie(COOKIE, "", max_age=0, httponly=True)
        return told


async def _dispatch(state: State, request: Request) -> Response:
    match [request.method, *request.path_params["path"].strip("/").split("/")]:
        case ["GET", "system", "ping"]:
            return answer({"status": "OK"})
        case ["GET", "config", "client"]:
            return _client_config(state, request)
        case ["GET", "users", "me"]:
            return answer(_user_json(authenticate(state, request)))
        case ["GET", "teams", "name", team, "channels", "name", name]:
            return _channel_by_name(state, authenticate(state, request), team, name)
        case ["POST", "posts"]:
            return await _create_post(state, request, authenticate(state, request))
        case ["GET", "posts", post_id]:
            return _get_post(state, authenticate(state, request), post_id)
        case ["PUT", "posts", post_id, "patch"]:
            return await _patch_post(state, request, authenticate(state, request), post_id)
        case ["DELETE", "posts", post_id]:
            return _delete_post(state, authenticate(state, request), post_id)
        case ["POST", "teams", team_id, "posts", "search"]:
            return await _search(state, request, authenticate(state, request), team_id)
        case ["GET", "channels", channel_id, "members", user_id]:
            return _member(state, authenticate(state, request), channel_id, user_id)
        case ["GET", "teams", _, "members", "me"]:
            return answer({"user_id": authenticate(state, request).id, "roles": "team_user"})
        case ["GET", "roles", "name", name]:
            authenticate(state, request)
            return _role(state, name)
        case ["GET", "channels", channel_id, "posts"]:
            return _channel_posts(state, request, authenticate(state, request), channel_id)
        case ["POST", "files"]:
            return await upload(state, request, authenticate(state, request))
    raise AppError(404, "api.context.404.app_error", "Sorry, we could not find the page.")


def _user_json(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "is_bot": user.is_bot,
        "roles": "system_user",
        "delete_at": 0,
    }


def _channel_by_name(state: State, user: User, team: str, name: str) -> Response:
    if not name or len(name) > 64 or not name.replace("-", "").replace("_", "").isalnum():
        raise AppError(400, "api.context.invalid_url_param.app_error")
    if team != state.team_name:
        raise AppError(404, "app.team.get_by_name.missing.app_error")
    channel = state.channel_by_name(state.team_id, name)
    if channel is None or not may_read(state, user, channel):
        raise AppError(404, "app.channel.get_by_name.missing.app_error")
    return answer(channel.as_json())


def _get_post(state: State, user: User, post_id: str) -> Response:
    for post in state.posts:
        if post.id == post_id and not post.delete_at:
            readable_channel(state, user, post.channel_id)
            return answer(post.as_json())
    raise AppError(404, "app.post.get.app_error")


def _member(state: State, user: User, channel_id: str, user_id: str) -> Response:
    channel = state.channels.get(channel_id)
    if channel is None or channel.team_id == state.other_team_id:
        raise forbidden()
    wanted = user if user_id == "me" else state.users.get(user_id)
    if wanted is None or (wanted.is_bot and not state.behaviour.bot_is_member):
        raise AppError(404, "app.channel.get_member.missing.app_error")
    return answer({"channel_id": channel.id, "user_id": wanted.id, "roles": "channel_user"})


def _client_config(state: State, request: Request) -> Response:
    """The settings that clients may know, as text."""
    if request.query_params.get("format") != "old":
        raise AppError(400, "api.config.client.old_format.app_error")
    return answer({"EnableFileAttachments": str(state.behaviour.files_enabled).lower()})


def _role(state: State, name: str) -> Response:
    permissions = {
        "system_user": ["create_direct_channel"],
        "team_user": ["list_team_channels"],
        "channel_user": ["read_channel", "create_post"],
    }
    if name not in permissions:
        raise AppError(404, "app.role.get_by_name.app_error")
    found = permissions[name]
    if name == "channel_user" and state.behaviour.may_upload:
        found = [*found, "upload_file"]
    return answer({"id": name, "name": name, "permissions": found, "built_in": True})


def _own_post(state: State, user: User, post_id: str) -> Post:
    for post in state.posts:
        if post.id == post_id and not post.delete_at and post.user_id == user.id:
            return post
    raise forbidden()


async def _patch_post(state: State, request: Request, user: User, post_id: str) -> Response:
    """A new text or new props; the row changes in place and is given by ``since`` again."""
    post = _own_post(state, user, post_id)
    wanted = json.loads(await read_body(request, state.behaviour.max_payload_bytes))
    post.message = str(wanted.get("message", post.message))
    post.props = dict(wanted.get("props", post.props))
    post.edit_at = post.update_at = state.now_ms()
    return answer(post.as_json())


def _delete_post(state: State, user: User, post_id: str) -> Response:
    state.delete_post(_own_post(state, user, post_id).id)
    return answer({"status": "OK"})


async def _search(state: State, request: Request, user: User, team_id: str) -> Response:
    """Every word of ``terms`` in a living post that the user may read; never the props."""
    wanted = json.loads(await read_body(request, state.behaviour.max_payload_bytes))
    words = str(wanted.get("terms", "")).lower().split()
    if not words:
        raise AppError(400, "api.context.invalid_body_param.app_error")
    found = [
        post
        for post in state.posts
        if not post.delete_at
        and state.channels[post.channel_id].team_id == team_id
        and may_read(state, user, state.channels[post.channel_id])
        and all(word in post.message.lower() for word in words)
    ]
    return answer(
        {
            "order": [p.id for p in found],
            "posts": {p.id: p.as_json() for p in found},
            "matches": {},
        }
    )


def _channel_posts(state: State, request: Request, user: User, channel_id: str) -> Response:
    """Newest first by page, or what changed after ``since``: at most 1000 rows in no order."""
    readable_channel(state, user, channel_id)
    try:
        since = int(request.query_params.get("since", "0"))
        page = int(request.query_params.get("page", "0"))
        per_page = min(int(request.query_params.get("per_page", "60")), 200)
    except ValueError as error:
        raise AppError(400, "api.context.invalid_param.app_error") from error
    lag = state.lag_of_next_replica()
    newest_seen = (state.now() - lag) * 1000 if lag else float("inf")
    rows = [p for p in state.posts if p.channel_id == channel_id and p.update_at <= newest_seen]
    if since:
        rows = sorted((p for p in rows if p.update_at > since), key=lambda p: p.id)[:_SINCE_LIMIT]
        rows.sort(key=lambda p: p.create_at, reverse=True)
        has_next = False
    else:
        living = sorted((p for p in rows if not p.delete_at), key=lambda p: -p.create_at)
        rows = living[page * per_page : (page + 1) * per_page]
        has_next = len(living) > (page + 1) * per_page
    return answer(
        {
            "order": [post.id for post in rows],
            "posts": {post.id: post.as_json() for post in rows},
            "next_post_id": "",
            "prev_post_id": "",
            "has_next": has_next,
        }
    )


async def _create_post(state: State, request: Request, user: User) -> Response:
    body = await read_body(request, state.behaviour.max_payload_bytes)
    fault = state.take_fault()
    if fault == "drop_before_save":
        return await cut_connection(request, reset=False)
    wanted = _post_fields(body)
    channel = state.channels.get(wanted["channel_id"])
    if channel is None or not may_read(state, user, channel):
        raise forbidden()
    if user.is_bot and not state.behaviour.bot_is_member:
        raise forbidden()
    if wanted["file_ids"] and not state.behaviour.may_upload:
        raise forbidden()
    silent = request.query_params.get("silent") == "true"
    if silent and not user.is_bot:
        raise AppError(403, "api.post.create_post.silent_notification.app_error")
    priority = wanted["metadata"].get("priority") or {}
    if silent and priority.get("persistent_notifications"):
        raise AppError(400, "api.post.create_post.silent_persistent_notification.app_error")
    key = wanted["pending_post_id"]
    pending = state.pending_of_next_node()
    known = pending.get(key, state.now()) if key else None
    if known == "":
        raise AppError(
            500,
            "api.post.deduplicate_create_post.pending",
            "Rejected post since another client is making the same request.",
        )
    earlier = next((post for post in state.posts if known and post.id == known), None)
    if earlier is not None and may_read(state, user, state.channels[earlier.channel_id]):
        return answer(earlier.as_json(), 201)
    if key:
        pending.set(key, "", state.now())
    if fault == "save_after_drop":

        def save() -> None:
            late = _save(state, user, channel, wanted, silent)
            if key:
                pending.set(key, late.id, state.now())

        return await save_after_drop(state, request, save)
    try:
        if state.behaviour.save_seconds:
            await idle(request, state.behaviour.save_seconds)
        post = _save(state, user, channel, wanted, silent)
    except AppError:
        pending.forget(key)
        raise
    if key:
        pending.set(key, post.id, state.now())
    made = answer(post.as_json(key), 201)
    # Extending a session sets the cookie; a client that keeps it is then refused for want of the
    # header that a browser would send.
    made.set_cookie(COOKIE, request.headers.get("authorization", "")[7:], httponly=True)
    return await finish(state, request, fault, made)


def _post_fields(body: bytes) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "channel_id": "",
        "message": "",
        "root_id": "",
        "pending_post_id": "",
        "file_ids": [],
        "props": {},
        "metadata": {},
    }
    try:
        given = json.loads(body)
    except ValueError as error:
        raise AppError(400, "api.context.invalid_body_param.app_error") from error
    if not isinstance(given, dict):
        raise AppError(400, "api.context.invalid_body_param.app_error")
    for name, default in wanted.items():
        value = given.get(name)
        if value is not None and not isinstance(value, type(default)):
            raise AppError(400, "api.context.invalid_body_param.app_error", detail=name)
        wanted[name] = default if value is None else value
    return wanted


def _save(state: State, user: User, channel: Channel, wanted: dict[str, Any], silent: bool) -> Post:
    if channel.delete_at:
        raise AppError(400, "api.post.create_post.can_not_post_to_deleted.error")
    roots = {post.id for post in state.posts if post.channel_id == channel.id}
    if wanted["root_id"] and wanted["root_id"] not in roots:
        raise AppError(400, "api.post.create_post.root_id.app_error")
    if len(wanted["message"]) > state.behaviour.max_post_runes:
        raise AppError(400, "model.post.is_valid.message_length.app_error")
    now = state.now_ms()
    post = Post(
        channel_id=channel.id,
        user_id=user.id,
        message=wanted["message"],
        original=wanted["message"],
        create_at=now,
        update_at=now,
        props=wanted["props"],
        root_id=wanted["root_id"],
        silent=silent and state.behaviour.silent_supported,
        mentions=find_mentions([wanted["message"]], state.usernames().values()),
    )
    post.file_ids = attach(state, wanted["file_ids"], post)
    state.posts.append(post)
    return post
