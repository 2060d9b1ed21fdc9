"""The incoming webhook, in the order in which the server checks (contract A1 to A3)."""

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from .state import Channel, Hook, Post, State
from .text import find_mentions, rewrite
from .wire import (
    AppError,
    common_headers,
    cut_connection,
    error_response,
    finish,
    html_response,
    multipart_fields,
    plain_response,
    read_body,
    save_after_drop,
)

_HOOK_ID = re.compile(r"[A-Za-z0-9]+")
_MEDIA_TYPE = re.compile(
    r"[\w.+*-]+/[\w.+*-]+(\s*;\s*[\w-]+\s*=\s*(\"[^\"]*\"|[^\s;\"]+))*\s*;?\s*"
)
_RAW_STRINGS = re.compile(
    r'("(?:text|fallback|pretext|author_name|title|value)"\s*:\s*")((?:[^"\\]|\\.)*)(")', re.DOTALL
)
_MAX_PROPS_RUNES = 760_000

# Up to version 8 the cause itself was the error's id; since then one id covers them.
_GENERAL = "web.incoming_webhook.general.app_error"
_INVALID_PARAM = "api.context.invalid_param.app_error"


@dataclass
class Payload:
    """The request's fields after decoding; unknown ones are gone."""

    text: str = ""
    channel: str = ""
    username: str = ""
    icon_url: str = ""
    icon_emoji: str = ""
    type: str = ""
    attachments: list[dict[str, Any]] = field(default_factory=list)
    props: dict[str, Any] = field(default_factory=dict)
    priority: dict[str, Any] = field(default_factory=dict)
    silent: bool = False


async def incoming_webhook(state: State, request: Request) -> Response:
    """``POST /hooks/{id}``; any other method falls through to the web application."""
    if request.method != "POST":
        return html_response(200, "Mattermost")
    hook_id = request.path_params["hook_id"]
    if not _HOOK_ID.fullmatch(hook_id):
        return html_response(404, "Not found")
    media_type = request.headers.get("content-type", "")
    try:
        body = await read_body(request, state.behaviour.max_payload_bytes)
        fault = state.take_fault()
        if fault == "drop_before_save":
            return await cut_connection(request, reset=False)
        payload = _decode(media_type, body)
        if fault == "save_after_drop":
            return await save_after_drop(state, request, lambda: _handle(state, hook_id, payload))
        _handle(state, hook_id, payload)
    except AppError as error:
        return error_response(state, _as_generation(state, error, hook_id, media_type))
    answer = plain_response(200, "ok", common_headers())
    return await finish(state, request, fault, answer)


def _as_generation(state: State, error: AppError, hook_id: str, media_type: str) -> AppError:
    """The error as the chosen generation words it; the current one repeats the hook's id."""
    same_in_both = (
        "api.context.request_body",
        "web.incoming_webhook.media_type",
        "web.incoming_webhook.parse_form",
    )
    if state.behaviour.generation == "old" or error.error_id.startswith(same_in_both):
        return error
    decoding = error.error_id == "model.incoming_hook.parse_data.app_error"
    return AppError(
        error.status,
        "web.incoming_webhook.decode.app_error" if decoding else _GENERAL,
        f"Failed to {'decode' if decoding else 'handle'} the payload of media type "
        f"{media_type or 'application/json'} for incoming webhook {hook_id}.",
        f"{error.error_id}: {error.detail}",
    )


def _decode(content_type: str, body: bytes) -> Payload:
    if content_type and not _MEDIA_TYPE.fullmatch(content_type.strip()):
        raise AppError(400, "web.incoming_webhook.media_type.app_error")
    media_type = content_type.split(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        fields = parse_qs(body.decode(errors="replace"), keep_blank_values=True)
        return _from_json(fields.get("payload", [""])[0])
    if media_type == "multipart/form-data":
        try:
            parts = multipart_fields(content_type, body)
            return _from_object({name: value.decode(errors="replace") for name, _, value in parts})
        except (ValueError, TypeError, LookupError) as error:
            raise AppError(400, "web.incoming_webhook.parse_form.app_error") from error
    return _from_json(body.decode(errors="replace"))


def _from_json(text: str) -> Payload:
    """Strictly first; then once more with raw newlines and tabs in texts escaped."""
    decoder = json.JSONDecoder()
    for attempt in (text, _RAW_STRINGS.sub(_escape_controls, text)):
        try:
            return _from_object(decoder.raw_decode(attempt.lstrip(" \t\r\n"))[0])
        except (ValueError, TypeError):
            continue
    raise AppError(400, "model.incoming_hook.parse_data.app_error")


def _escape_controls(match: re.Match[str]) -> str:
    value = match[2].replace("\n", "\\n").replace("\t", "\\t")
    return f"{match[1]}{value}{match[3]}"


def _from_object(value: Any) -> Payload:
    """Field by field; names match in any case, ``null`` is the zero value.

    Raises ``TypeError`` where a field has another type.
    """
    if not isinstance(value, dict | None):
        raise TypeError("not an object")
    payload = Payload()
    for name, content in (value or {}).items():
        current = getattr(payload, name.lower(), None)
        if current is None or content is None:
            continue
        if not isinstance(content, type(current)):
            raise TypeError(f"wrong type: {name}")
        setattr(payload, name.lower(), content)
    if not all(isinstance(attachment, dict | None) for attachment in payload.attachments):
        raise TypeError("wrong type: attachments")
    payload.attachments = [attachment for attachment in payload.attachments if attachment]
    return payload


def _handle(state: State, hook_id: str, payload: Payload) -> None:
    switches = state.behaviour
    if not switches.webhooks_enabled:
        raise AppError(501, "web.incoming_webhook.disabled.app_error")
    if not payload.text and not payload.attachments:
        raise AppError(400, "web.incoming_webhook.text.app_error")
    hook = state.hooks.get(hook_id)
    if hook is None or switches.hook_deleted:
        raise AppError(400, "web.incoming_webhook.invalid.app_error")
    channel = _find_channel(state, hook, payload.channel)
    if switches.hook_channel_locked and channel.id != hook.channel_id:
        raise AppError(403, "web.incoming_webhook.channel_locked.app_error")
    if switches.hook_owner_missing:
        raise AppError(403, "web.incoming_webhook.user.app_error")
    if switches.town_square_read_only and channel.name == "town-square":
        raise AppError(403, "api.post.create_post.town_square_read_only")
    if channel.type == "P" and not switches.hook_owner_reads_private:
        raise AppError(403, "web.incoming_webhook.permissions.app_error")
    if payload.type and not payload.attachments and not payload.type.startswith("custom_"):
        raise AppError(400, _INVALID_PARAM)
    if payload.priority and not payload.priority.get("priority"):
        raise AppError(400, _INVALID_PARAM)
    if payload.silent and payload.priority.get("persistent_notifications"):
        raise AppError(400, "web.incoming_webhook.silent_persistent_notification.app_error")
    _save(state, hook, channel, payload)


def _find_channel(state: State, hook: Hook, wanted: str) -> Channel:
    """The named channel of the hook's team, a direct channel with its owner, or its own one."""
    if wanted.startswith("@"):
        for user in state.users.values():
            if user.username == wanted[1:]:
                return state.direct_channel(state.users[hook.user_id], user)
        raise AppError(400, "web.incoming_webhook.user.app_error", detail=wanted)
    if wanted:
        found = state.channel_by_name(hook.team_id, wanted.removeprefix("#"))
        if found is None:
            raise AppError(404, "web.incoming_webhook.channel.app_error", detail=wanted)
        return found
    if state.behaviour.hook_bound_channel_gone:
        raise AppError(404, "app.channel.get.existing.app_error")
    return state.channels[hook.channel_id]


def _save(state: State, hook: Hook, channel: Channel, payload: Payload) -> None:
    """Rewrite, split, and save one split after the other, as a failing one leaves the earlier."""
    switches = state.behaviour
    names = state.usernames()
    text = rewrite(payload.text, names, switches.generation)
    attachments = [
        {
            key: rewrite(value, names, switches.generation) if isinstance(value, str) else value
            for key, value in attachment.items()
        }
        for attachment in payload.attachments
    ]
    props = _props(state, payload)
    if len(json.dumps(props, ensure_ascii=False)) > _MAX_PROPS_RUNES:
        raise AppError(400, "web.incoming_webhook.split_props_length.app_error")
    limit = switches.max_post_runes
    splits = [text[start : start + limit] for start in range(0, len(text), limit)] or [""]
    for number, split in enumerate(splits, start=1):
        if switches.fail_on_split == number:
            raise AppError(500, "api.post.create_webhook_post.creating.app_error")
        last = number == len(splits)
        scanned = [split]
        if last:
            scanned += [a.get(key) or "" for a in attachments for key in ("pretext", "text")]
        now = state.now_ms()
        state.posts.append(
            Post(
                channel_id=channel.id,
                user_id=hook.user_id,
                message=split,
                original=payload.text,
                create_at=now,
                update_at=now,
                props=props | ({"attachments": attachments} if last and attachments else {}),
                type="slack_attachment" if payload.attachments else payload.type,
                silent=payload.silent and switches.silent_supported,
                mentions=find_mentions(scanned, names.values()),
            )
        )


def _props(state: State, payload: Payload) -> dict[str, Any]:
    props = {key: value for key, value in payload.props.items() if key != "attachments"}
    props |= {"from_webhook": "true", "webhook_display_name": "Fleet Reports"}
    for name in ("override_username", "override_icon_url", "override_icon_emoji"):
        props.pop(name, None)
    if state.behaviour.username_override:
        props["override_username"] = payload.username or "webhook"
    if state.behaviour.icon_override and payload.icon_url:
        props["override_icon_url"] = payload.icon_url
    if state.behaviour.icon_override and payload.icon_emoji:
        props["override_icon_emoji"] = payload.icon_emoji
    return props
