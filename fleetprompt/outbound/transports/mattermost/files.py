"""A file that goes along with a post: uploading it, and whether an account may.

``POST /api/v4/files`` gives an id that a post of the same account in the same channel may carry once. A
file that no post carries is seen by nobody, so an upload may be repeated; and a post is worth more
than its picture, so whatever becomes of an upload never keeps the post back.
"""

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from fleetprompt.outbound.http import OutboundClient, OutboundError
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.mattermost.server import Server, decode, failure, refusal

# With the requests before it well within the ledger's lease, a second try included.
_UPLOAD_SECONDS = 7.0
_TRIES = 2
_PERMISSION = "upload_file"
_ID = re.compile(r"[a-z0-9]{26}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,._-]{0,99}")
_ROLE = re.compile(r"[a-z0-9_]{1,64}")

MAY_NOT_ATTACH = (
    "the token's account may not attach files, or files are switched off on the server. Give its role in "
    "the channel the permission to upload files (upload_file)"
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file; ``name`` is shown to people. ``ValueError`` for a name that cannot stand in a header."""

    name: str
    content: bytes = field(repr=False)
    media_type: str = "image/png"

    def __post_init__(self) -> None:
        """Judge the name, which is our own."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"not a name for a file: {self.name!r}")

    def form(self, channel_id: str) -> tuple[str, bytes]:
        """Content type and body of the upload; the channel comes first, as the server wants it."""
        # No part holds its own hash, and the same file makes the same bytes.
        boundary = sha256(self.content).hexdigest()
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="channel_id"\r\n\r\n{channel_id}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{self.name}"\r\n'
            f"Content-Type: {self.media_type}\r\n\r\n"
        )
        body = parts.encode() + self.content + f"\r\n--{boundary}--\r\n".encode()
        return f"multipart/form-data; boundary={boundary}", body


class _Info(msgspec.Struct):
    id: str


class _Uploaded(msgspec.Struct):
    file_infos: list[_Info]


class _Member(msgspec.Struct):
    roles: str = ""


class _Role(msgspec.Struct):
    permissions: list[str]


class _ClientConfig(msgspec.Struct):
    attachments: str = msgspec.field(default="true", name="EnableFileAttachments")


async def upload(
    client: OutboundClient, server: Server, channel_id: str, attachment: Attachment
) -> str | Outcome:
    """The id of the uploaded file, or why there is none; tried again where no clear answer came."""
    found: str | Outcome = ""
    for _ in range(_TRIES):
        found = await _upload(client, server, channel_id, attachment)
        if isinstance(found, str) or found.state != "unknown":
            break
    return found


async def _upload(
    client: OutboundClient, server: Server, channel_id: str, attachment: Attachment
) -> str | Outcome:
    content_type, content = attachment.form(channel_id)
    try:
        reply = await server.request(
            client,
            "POST",
            "/files",
            content=content,
            content_type=content_type,
            deadline_seconds=_UPLOAD_SECONDS,
        )
    except OutboundError as error:
        return failure(error)
    if reply.status == 201:
        uploaded = decode(reply, _Uploaded)
        ids = [info.id for info in uploaded.file_infos] if uploaded else []
        if len(ids) == 1 and _ID.fullmatch(ids[0]):
            return ids[0]
        return Outcome(
            "unknown", "unknown", "The answer is not the one that Mattermost gives.", 201
        )
    too_large: tuple[Any, str] = ("validation", "The picture is larger than the server takes.")
    refused: tuple[Any, str] = ("auth", f"{MAY_NOT_ATTACH[0].upper()}{MAY_NOT_ATTACH[1:]}.")
    return refusal(reply, {403: refused, 413: too_large, 501: refused})


async def may_attach(
    client: OutboundClient, server: Server, channel_id: str, team_id: str, roles: str
) -> bool | None:
    """Whether the account, with these ``roles`` of its own, may attach files there; None: not to be told.

    Nothing is uploaded: the server's public settings and the permissions of the account's roles are read.
    """
    config = await _read(client, server, "/config/client?format=old", _ClientConfig)
    if config is not None and config.attachments == "false":
        return False
    names = set(roles.split())
    for path in (f"/channels/{channel_id}/members/me", f"/teams/{team_id}/members/me"):
        member = await _read(client, server, path, _Member)
        if member is None:
            return None
        names.update(member.roles.split())
    # A system administrator may do everything; of the others the most likely role is asked first.
    for name in sorted(names, key=lambda one: (not one.startswith("channel"), one)):
        role = (
            await _read(client, server, f"/roles/name/{name}", _Role)
            if _ROLE.fullmatch(name)
            else None
        )
        if role is None:
            return None
        if _PERMISSION in role.permissions:
            return True
    return False


async def _read(client: OutboundClient, server: Server, path: str, shape: type[Any]) -> Any:
    try:
        reply = await server.request(client, "GET", path)
    except OutboundError:
        return None
    return decode(reply, shape) if reply.status == 200 else None
