"""The chat widget's files below ``/widget/v1``, as docs/reference/webchat-api.md names them.

They are public and the same for everybody, so every page may load them. They are read once, and again
when they were built anew: the manifest is what a build writes last.
"""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import NotFoundError
from fleetprompt.settings import Settings
from fleetprompt_api.etag import names
from fleetprompt_api.state import state_of

routes = APIRouter(prefix="/widget/v1", include_in_schema=False)

LOADER = "loader.js"
_MINUTES = "public, max-age=300"
_FOR_EVER = "public, max-age=31536000, immutable"
_CHAT = re.compile(r"chat\.([a-z]{2})\.[0-9a-f]{8}\.js")
# In an installed package, and in the source tree.
_FOLDERS = (Path(__file__).parent / "widget", Path(__file__).parents[2] / "widget" / "dist")


@dataclass(frozen=True, slots=True)
class WidgetFile:
    """A file as it is and compressed; ``tag`` changes with its content."""

    content: bytes
    gzipped: bytes
    tag: str
    integrity: str

    @classmethod
    def of(cls, content: bytes) -> "WidgetFile":
        """What is served of a content."""
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        tag = hashlib.sha256(content).hexdigest()[:16]
        return cls(content, gzip.compress(content, 9, mtime=0), tag, f"sha384-{digest}")


@dataclass(frozen=True, slots=True)
class Build:
    """One build of the widget; ``pinned`` is the loader's name that changes with its content."""

    files: dict[str, WidgetFile]
    pinned: str
    chats: dict[str, str]

    def find(self, name: str) -> tuple[WidgetFile, str]:
        """The file for a name and how long it may be kept; NotFoundError for what is none of ours.

        A chat of another build is answered with this one's, so that an old loader in a cache never breaks.
        """
        if name in self.files:
            return self.files[name], _MINUTES if name == LOADER else _FOR_EVER
        chat = _CHAT.fullmatch(name)
        if chat is None or chat[1] not in self.chats:
            raise NotFoundError("The widget has no such file.")
        return self.files[self.chats[chat[1]]], _MINUTES

    @property
    def integrity(self) -> str:
        """What a page demands of the pinned loader (W3C Subresource Integrity)."""
        return self.files[self.pinned].integrity


def current_build(settings: Settings) -> Build:
    """The build that is there now; NotFoundError when there is none."""
    given = settings.widget_dir
    for folder in (given,) if given is not None else _FOLDERS:
        try:
            built = (folder / "manifest.json").stat().st_mtime_ns
            return _read(folder, built)
        except FileNotFoundError:
            continue
    raise NotFoundError(
        "The chat widget is not built here. Build it with `npm ci && npm run build` in `widget/`, "
        "or name the folder of a build in FLEETPROMPT_WIDGET_DIR."
    )


@lru_cache(maxsize=1)
def _read(folder: Path, _built: int) -> Build:
    manifest = json.loads((folder / "manifest.json").read_text())
    pinned: str = manifest["loader"]["file"]
    chats: dict[str, str] = {language: chat["file"] for language, chat in manifest["chat"].items()}
    files = {
        name: WidgetFile.of((folder / name).read_bytes()) for name in (pinned, *chats.values())
    }
    files[LOADER] = files[pinned]
    return Build(files, pinned, chats)


@routes.api_route("/{name}", methods=["GET", "HEAD"])
async def read_widget_file(name: str, request: Request) -> Response:
    """One file; 304 to who has it already."""
    file, cache = current_build(state_of(request).settings).find(name)
    compressed = _takes_gzip(request.headers.get("accept-encoding", ""))
    tag = f'"{file.tag}-gzip"' if compressed else f'"{file.tag}"'
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Cache-Control": cache,
        "Cross-Origin-Resource-Policy": "cross-origin",
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }
    if names(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["Content-Encoding"] = "gzip"
    content = file.gzipped if compressed else file.content
    return Response(content, headers=headers, media_type="text/javascript; charset=utf-8")


def _takes_gzip(accepted: str) -> bool:
    """Whether ``Accept-Encoding`` names gzip with a weight above 0 (RFC 9110 §12.5.3)."""
    for coding in accepted.lower().split(","):
        name, _, weight = (part.strip() for part in coding.partition(";"))
        if name == "gzip":
            return not re.fullmatch(r"q=0(\.0*)?", weight)
    return False
