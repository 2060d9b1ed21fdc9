"""Exchanging a pairing code for the connector's key (docs/reference/edge-api.md)."""

from typing import NamedTuple
from uuid import UUID

import httpx

from fleetprompt_edge import __version__
from fleetprompt_edge.errors import (
    EdgeError,
    PlatformAuthError,
    PlatformBusyError,
    PlatformDownError,
)

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class Paired(NamedTuple):
    """What a code was good for. ``tenant`` is the slug; ``warning`` is for the person who pairs."""

    key: str
    connector_id: str
    label: str
    tenant: str
    warning: str | None

    def __repr__(self) -> str:
        return f"Paired(connector_id={self.connector_id!r})"


def exchange(base_url: str, code: str, account: str) -> Paired:
    """The key, once; an ``EdgeError`` says whether the code is still good."""
    content = {"code": code, "version": __version__, "account": account}
    try:
        answer = httpx.post(
            f"{base_url}/api/edge/v1/pair", json=content, timeout=_TIMEOUT, follow_redirects=False
        )
    except httpx.HTTPError as error:
        raise PlatformDownError(
            "FleetPrompt cannot be reached, or its answer was lost.",
            remedy="Try again; if the code is used up by then, ask the admin for a new one.",
        ) from error
    if answer.status_code == 401:
        raise PlatformAuthError(
            "FleetPrompt does not know this code, or it was used or is too old.",
            remedy="Ask the admin for a new code; one is good for 15 minutes.",
        )
    if answer.status_code in (429, 503):
        wait = answer.headers.get("retry-after", "some")
        raise PlatformBusyError(f"FleetPrompt asks to wait {wait} seconds; the code is still good.")
    if answer.status_code != 200:
        raise EdgeError(
            f"FleetPrompt did not pair ({answer.status_code}).",
            remedy="See that --url is FleetPrompt's address and that the code is typed as shown.",
        )
    try:
        found = answer.json()
        warning = found.get("warning")
        return Paired(
            str(found["key"]),
            str(UUID(found["connector_id"])),
            str(found["label"]),
            str(found["tenant"]["slug"]),
            None if warning is None else str(warning),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PlatformDownError(
            "Something other than FleetPrompt answered.", remedy="Compare --url."
        ) from None
