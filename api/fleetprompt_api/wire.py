"""What answers have in common: UTC times, links, pages behind opaque cursors, safe text."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, StringConstraints, field_validator
from starlette.requests import Request

from fleetprompt.errors import InvalidError

PAGE_LIMIT = 200

Links = dict[str, str]
Item = TypeVar("Item")
Row = TypeVar("Row")


class Wire(BaseModel):
    """Base of what is answered: every time is in UTC, whatever zone the database speaks."""

    @field_validator("*", mode="after")
    @classmethod
    def _in_utc(cls, value: Any) -> Any:
        return value.astimezone(UTC) if isinstance(value, datetime) else value


class Page(BaseModel, Generic[Item]):
    """A part of a list, newest first; it goes on behind ``next_cursor`` until that is null."""

    items: list[Item]
    next_cursor: str | None
    links: Links


class Listing(BaseModel, Generic[Item]):
    """A whole list."""

    items: list[Item]
    links: Links


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("NUL cannot be stored")
    return text


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


Text = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_storable)]
Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="Most items in the answer.")]
Cursor = Annotated[
    str | None,
    Query(max_length=64, description="`next_cursor` of the page before."),
]


def read_cursor(cursor: str | None) -> UUID | None:
    """The id behind which the page starts; InvalidError for a cursor that was not given out."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"==", altchars=b"-_", validate=True)
        return UUID(bytes=raw)
    except (ValueError, binascii.Error):
        raise InvalidError(
            errors=[{"pointer": "#query/cursor", "detail": "is no cursor of this list"}]
        ) from None


def make_cursor(last: UUID) -> str:
    """Opaque to callers: what it holds may change."""
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def page(
    request: Request,
    rows: Sequence[Row],
    limit: int,
    id_of: Callable[[Row], UUID],
    view: Callable[[Row], Item],
) -> Page[Item]:
    """A page from at most ``limit`` rows; after a full one there may be more."""
    cursor = make_cursor(id_of(rows[-1])) if len(rows) == limit else None
    links = {"self": _url(request, {})}
    if cursor is not None:
        links["next"] = _url(request, {"cursor": cursor})
    return Page[Item](items=[view(row) for row in rows], next_cursor=cursor, links=links)


def listing(request: Request, items: Sequence[Item]) -> Listing[Item]:
    """A whole list with a link to itself."""
    return Listing[Item](items=list(items), links={"self": _url(request, {})})


def _url(request: Request, changed: Mapping[str, str]) -> str:
    query = urlencode({**request.query_params, **changed})
    return f"{request.url.path}?{query}" if query else request.url.path
