"""The pages below ``/docs``: the reference, made from the OpenAPI document, and the problem types.

Plain HTML without script or anything from elsewhere, so that the strictest policy holds.
"""

import inspect
import re
from functools import lru_cache
from typing import Any

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from fleetprompt_api.problems import PROBLEMS_PATH, problem_types

routes = APIRouter(include_in_schema=False)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
}


@lru_cache(maxsize=1)
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("fleetprompt_api", "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["prose"] = _prose
    return made


@routes.get("/docs")
async def read_reference(request: Request) -> HTMLResponse:
    """Every operation with its parameters, body and answers."""
    document: dict[str, Any] = request.app.openapi()
    return _page("reference.html", document=document, groups=_by_tag(document))


@routes.get(PROBLEMS_PATH)
async def read_problems() -> HTMLResponse:
    """Every problem type, at the address that its ``type`` names."""
    found = [
        {
            "id": kind.id,
            "status": kind.status,
            "title": kind.title,
            "text": inspect.cleandoc(kind.__doc__ or ""),
        }
        for kind in sorted(problem_types().values(), key=lambda kind: (kind.status, kind.id))
    ]
    return _page("problems.html", problems=found)


@routes.get("/docs/style.css")
async def read_style() -> Response:
    """The pages' style sheet."""
    source, _, _ = _templates().loader.get_source(_templates(), "style.css")  # type: ignore[union-attr]  # given above
    return Response(source, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def _prose(text: str) -> Markup:
    """Text whose `names` between backticks are shown as code."""
    return Markup(re.sub("`+([^`]+)`+", r"<code>\1</code>", escape(text)))  # noqa: S704 - escaped


def _page(template: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(template).render(**values), headers=_HEADERS)


def _by_tag(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            entry = {"path": path, "method": method.upper(), **operation}
            groups.setdefault(operation["tags"][0], []).append(entry)
    return groups
