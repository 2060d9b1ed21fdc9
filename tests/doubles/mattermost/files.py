"""``POST /files`` and what becomes of a file: in the order in which the server looks (contract A7)."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from .access import answer, forbidden, readable_channel
from .state import Post, State, UploadedFile, User
from .wire import AppError, cut_connection, finish, multipart_fields, read_body, save_after_drop

_MOST_BYTES = 200 * 1024 * 1024


async def upload(state: State, request: Request, user: User) -> Response:
    """Files of a form, or one that is the body itself; they belong to nothing until a post takes them."""
    switches = state.behaviour
    if not switches.files_enabled:
        # 501 up to version 9.
        status = 501 if switches.generation == "old" else 403
        raise AppError(status, "api.file.attachments.disabled.app_error")
    if request.headers.get("content-length") == "0":
        raise AppError(400, "api.file.upload_file.read_request.app_error")
    body = await read_body(request, _MOST_BYTES)
    fault = state.take_upload_fault()
    if fault == "drop_before_save":
        return await cut_connection(request, reset=False)
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        channel_id, named = _form(content_type, body, request.query_params.get("channel_id", ""))
    else:
        channel_id, name = (request.query_params.get(n, "") for n in ("channel_id", "filename"))
        if not channel_id or not name:
            raise AppError(400, "api.context.invalid_url_param.app_error")
        named = [(name, body)]
    files = [_judged(state, user, channel_id, name, content) for name, content in named]
    if fault == "save_after_drop":
        return await save_after_drop(state, request, lambda: _keep(state, files))
    _keep(state, files)
    made = answer({"file_infos": [one.as_json() for one in files], "client_ids": []}, 201)
    return await finish(state, request, fault, made)


def _form(content_type: str, body: bytes, channel_id: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The channel and the files of a form; other fields than the server knows are refused."""
    try:
        parts = multipart_fields(content_type, body)
    except (ValueError, LookupError) as error:
        raise AppError(400, "api.file.upload_file.read_request.app_error") from error
    files = []
    for name, filename, content in parts:
        if filename is not None:
            files.append((filename, content))
        elif name == "channel_id":
            if channel_id and channel_id != content.decode():
                raise AppError(400, "api.file.upload_file.multiple_channel_ids.app_error")
            channel_id = content.decode()
        elif name != "client_ids":
            raise AppError(400, "api.context.invalid_param.app_error")
    if files and not channel_id:
        raise AppError(400, "api.context.invalid_param.app_error")
    return channel_id, files


def _judged(state: State, user: User, channel_id: str, name: str, content: bytes) -> UploadedFile:
    channel = readable_channel(state, user, channel_id)
    member = not user.is_bot or state.behaviour.bot_is_member
    if not state.behaviour.may_upload or not member:
        raise forbidden()
    if len(content) > state.behaviour.max_file_bytes:
        raise AppError(413, "api.file.upload_file.too_large_detailed.app_error")
    return UploadedFile(name, channel.id, user.id, content, state.now_ms())


def _keep(state: State, files: Sequence[UploadedFile]) -> None:
    state.files |= {file.id: file for file in files}


def attach(state: State, file_ids: Sequence[str], post: Post) -> list[str]:
    """Give the post those of the files that are its author's, its channel's and nobody's yet.

    The others are left out without a word, as the server does.
    """
    taken = []
    for file_id in file_ids:
        file = state.files.get(file_id)
        if file is None or file.post_id:
            continue
        if (file.user_id, file.channel_id) == (post.user_id, post.channel_id):
            file.post_id = post.id
            taken.append(file_id)
    return taken
