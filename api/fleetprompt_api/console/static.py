"""The style sheet, the script and the icon, each at an address that changes with its content."""

from functools import lru_cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from fleetprompt.errors import NotFoundError

routes = APIRouter(prefix="/console/static")

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_YEAR = 365 * 24 * 3600


@lru_cache(maxsize=1)
def _contents() -> dict[str, tuple[str, bytes]]:
    """Name → hash of the content and the content."""
    folder = files("fleetprompt_api.console") / "static"
    found = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
    return {name: (sha256(content).hexdigest()[:16], content) for name, content in found.items()}


def address(name: str) -> str:
    """Where a file is served; KeyError for one that is not there."""
    return f"/console/static/{_contents()[name][0]}/{name}"


@routes.api_route("/{version}/{name}", methods=["GET", "HEAD"])
async def read_file(version: str, name: str) -> Response:
    """A file, for ever under this address; a content that is gone is not there."""
    known, content = _contents().get(name, (None, b""))
    if known is None or known != version:
        raise NotFoundError("There is no such file.")
    kind = next(kind for ending, kind in _TYPES.items() if name.endswith(ending))
    return Response(
        content,
        media_type=kind,
        headers={"Cache-Control": f"public, max-age={_YEAR}, immutable", "ETag": f'"{known}"'},
    )
