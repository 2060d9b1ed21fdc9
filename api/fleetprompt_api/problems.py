"""Errors as problem documents (RFC 9457), whatever raised them.

A problem's ``type`` is the address of its description, ``instance`` the request's id. Values from
the request are never repeated: they may be secrets.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleetprompt.errors import (
    DatabaseUnavailableError,
    FleetPromptError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
    every_problem,
)
from fleetprompt_api.state import NOTES

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
PROBLEMS_PATH = "/docs/problems"
# Seconds until it is worth trying again, where the error itself does not say.
_TRY_AGAIN = {429: 60, 503: 5}
_MOST_ERRORS = 100
# No such table, no right to it, no such role: what a tenant transaction meets when the tenant is
# being made, migrated or deleted (PostgreSQL, appendix A).
_TENANT_GONE = frozenset({"42P01", "42501", "22023"})

_BY_STATUS: dict[int, type[FleetPromptError]] = {
    kind.status: kind
    for kind in (
        MalformedError,
        UnauthenticatedError,
        ForbiddenError,
        NotFoundError,
        MethodNotAllowedError,
        TooLargeError,
        UnsupportedMediaTypeError,
        InvalidError,
    )
}


class ErrorPlace(BaseModel):
    """One thing that is wrong. A pointer that starts with ``#`` names a parameter or header."""

    model_config = ConfigDict(extra="allow")

    pointer: str = Field(description="RFC 6901 pointer into the request's body.")
    detail: str


class Problem(BaseModel):
    """A problem document; a type may add members of its own."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="The request's id, as in `X-Request-Id`.")
    errors: list[ErrorPlace] = []


def problem_types() -> dict[str, type[FleetPromptError]]:
    """Every problem by id; several errors may share one, the first is the one that describes it."""
    found: dict[str, type[FleetPromptError]] = {}
    for kind in every_problem():
        found.setdefault(kind.id, kind)
    return found


def problem_response(error: FleetPromptError, base_url: str) -> JSONResponse:
    """The answer for an error. Of what is ``internal`` nothing is told but the request's id."""
    notes = NOTES.get()
    hidden = error.id == FleetPromptError.id
    content: dict[str, Any] = {} if hidden else dict(error.extra)
    content |= {
        "type": f"{base_url}{PROBLEMS_PATH}#{error.id}",
        "title": FleetPromptError.title if hidden else error.title,
        "status": error.status,
        "detail": "Something went wrong here; the request's id finds it in the log."
        if hidden
        else error.detail,
        "instance": notes.request_id if notes else "",
    }
    if error.errors and not hidden:
        content["errors"] = error.errors[:_MOST_ERRORS]
    headers = retry_headers(error)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="fleetprompt"'
    return JSONResponse(content, error.status, headers, media_type=MEDIA_TYPE)


def retry_headers(error: FleetPromptError) -> dict[str, str]:
    """``Retry-After`` in seconds, where trying again later is worth it."""
    if error.status not in _TRY_AGAIN:
        return {}
    seconds = _TRY_AGAIN[error.status] if error.retry_after is None else error.retry_after
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def install(app: FastAPI, base_url: str) -> None:
    """Answer every error that the framework or an endpoint raises with a problem document."""

    async def told(request: Request, error: Exception) -> Response:
        return problem_response(as_problem(error), base_url)

    async def from_http(request: Request, error: Exception) -> Response:
        answer = problem_response(as_problem(error), base_url)
        if isinstance(error, HTTPException) and error.status_code == 405:
            answer.headers["Allow"] = ", ".join(_allowed_methods(app, request))
        return answer

    app.add_exception_handler(FleetPromptError, told)
    app.add_exception_handler(RequestValidationError, told)
    app.add_exception_handler(DBAPIError, told)
    app.add_exception_handler(HTTPException, from_http)


def as_problem(error: Exception) -> FleetPromptError:
    """The problem that an exception of any kind stands for; unexpected ones are logged."""
    if isinstance(error, FleetPromptError):
        if error.status >= 500 and error.id == FleetPromptError.id:
            log.error("a request failed", exc_info=error)
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
        return _BY_STATUS[error.status_code](_FRAMEWORK_DETAIL.get(error.status_code, ""))
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", None))
        if state in _TENANT_GONE:
            log.warning("a tenant's tables are not there", extra={"sqlstate": state})
            return DatabaseUnavailableError(
                "This tenant's tables are not there; it may be in the middle of a migration or "
                "being deleted.",
                retry_after=5,
            )
        if state.startswith("22"):
            # A value that PostgreSQL cannot hold; its message would repeat the value.
            return InvalidError("The database cannot hold a value of this request.")
    log.error("a request failed unexpectedly", exc_info=error)
    return FleetPromptError()


_FRAMEWORK_DETAIL = {
    400: "The request could not be read.",
    404: "There is nothing at this address.",
    405: "See `Allow` for what this address offers.",
}


def _invalid(errors: Iterable[Any]) -> InvalidError:
    places = []
    for error in errors:
        location = [str(part) for part in error["loc"]]
        place, path = location[0], location[1:]
        pointer = "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)
        places.append(
            {
                "pointer": pointer if place == "body" else f"#{place}{pointer}",
                "detail": str(error["msg"]).removeprefix("Value error, "),
            }
        )
    return InvalidError(errors=places)


def _allowed_methods(app: FastAPI, request: Request) -> list[str]:
    """Methods of every route at this path; the framework names those of the first one alone."""
    found = set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0].name == "FULL" for route in app.router.routes):
            found.add(method)
    return sorted(found)
