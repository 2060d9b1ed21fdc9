"""FleetPrompt over HTTP, and nothing else that may answer in its place.

A hotel's login page answers 200 to everything. An answer counts only if it is what FleetPrompt
answers: its media type, one item for each signal, an id for each (trap 35). Redirects are not followed, so
that the key goes nowhere else.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import httpx

from fleetprompt_edge import __version__
from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import (
    PlatformAuthError,
    PlatformBusyError,
    PlatformDownError,
    PlatformRefusedError,
)

Verdict = Literal["created", "duplicate", "refused"]
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_LONGEST_RETRY_AFTER = 3600.0
_LARGEST_ANSWER = 4 * 1024 * 1024


class Answer(NamedTuple):
    """What became of one signal; of a refused one the problem, its text and the places (RFC 6901)."""

    verdict: Verdict
    problem: str = ""
    detail: str = ""
    pointers: tuple[str, ...] = ()


class Me(NamedTuple):
    """Whom a key belongs to. ``ahead``: seconds by which this clock is ahead of FleetPrompt's."""

    tenant: str
    organization_id: str
    connector_id: str | None
    scopes: frozenset[str]
    ahead: float | None


class Leased(NamedTuple):
    """A directive in this connector's hands, by attempt and lease."""

    id: str
    type: str
    params: dict[str, Any]
    attempt: int
    lease_token: str
    correlation_id: str


class Platform:
    """One profile's connection; may be used by several threads. ``PlatformAuthError`` for what is no key."""

    def __init__(
        self,
        base_url: str,
        key: str,
        clock: Clock,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not key.isascii() or not key.isprintable():
            raise _key_refused("What is stored as the connector's key is none.")
        self._clock = clock
        self._http = httpx.Client(
            base_url=base_url,
            timeout=_TIMEOUT,
            follow_redirects=False,
            transport=transport,
            headers={
                "Authorization": f"Bearer {key}",
                "Accept": "application/json",
                "User-Agent": f"fleetprompt-edge/{__version__}",
            },
        )

    def close(self) -> None:
        """End it; what is under way fails."""
        self._http.close()

    def me(self) -> Me:
        """Whom the key belongs to."""
        answer = self._send("GET", "/api/v1/me")
        content = _json(answer)
        try:
            tenant = content["tenant"]
            return Me(
                str(tenant["slug"]),
                str(UUID(tenant["id"])),
                content["connector_id"],
                frozenset(content["scopes"]),
                self._ahead(answer),
            )
        except (KeyError, TypeError, ValueError):
            raise _not_ours() from None

    def send(self, bodies: Sequence[str]) -> list[Answer]:
        """Send signals; one answer for each, in their order."""
        answer = self._send(
            "POST",
            "/api/edge/v1/signals?partial=true",
            content="\n".join(bodies).encode(),
            headers={"Content-Type": "application/x-ndjson"},
        )
        content = _json(answer)
        items = content.get("items") if isinstance(content, dict) else None
        if not isinstance(items, list) or len(items) != len(bodies):
            raise _not_ours()
        return [_answer(item) for item in items]

    def directives(self, wait: int) -> list[Leased]:
        """At most one directive, under a lease of a minute; waits up to ``wait`` seconds for it."""
        asked = f"/api/edge/v1/directives?status=pending&limit=1&wait={wait}"
        try:
            return [
                Leased(
                    str(UUID(one["id"])),
                    str(one["type"]),
                    dict(one["params"]),
                    int(one["attempt"]),
                    str(UUID(one["lease_token"])),
                    str(one["correlation_id"] or f"directive:{one['id']}"),
                )
                for one in _json(self._send("GET", asked))
            ]
        except (KeyError, TypeError, ValueError):
            raise _not_ours() from None

    def keep(self, leased: Leased) -> bool:
        """Renew a lease; False if it is lost."""
        held = {"attempt": leased.attempt, "lease_token": leased.lease_token}
        try:
            content = _json(
                self._send("POST", f"/api/edge/v1/directives/{leased.id}/ack", json=held)
            )
        except PlatformRefusedError as error:
            if error.status in (404, 409):
                return False
            raise
        if not isinstance(content, dict) or "lease_expires_at" not in content:
            raise _not_ours()
        return True

    def report(self, directive_id: str, body: str) -> str:
        """Tell how an attempt ended; the directive's state then. ``PlatformRefusedError`` if the report is
        not wanted any more."""
        content = _json(
            self._send(
                "POST",
                f"/api/edge/v1/directives/{directive_id}/result",
                content=body.encode(),
                headers={"Content-Type": "application/json"},
            )
        )
        if not isinstance(content, dict) or content.get("directive_id") != directive_id:
            raise _not_ours()
        return str(content.get("state"))

    def _send(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **rest)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, RuntimeError) as error:
            # RuntimeError: closed under way, at shutdown. No text of it: it may hold the address.
            raise PlatformDownError(
                "FleetPrompt cannot be reached.",
                remedy="See that this machine is online and that fleetprompt.base_url is right.",
            ) from error
        if answer.status_code in (200, 201, 207):
            return answer
        raise self._failure(answer)

    def _failure(
        self, answer: httpx.Response
    ) -> PlatformDownError | PlatformAuthError | PlatformBusyError | PlatformRefusedError:
        status = answer.status_code
        problem = _problem(answer)
        if status in (401, 403) and problem is not None:
            return _key_refused(
                "FleetPrompt does not accept the connector's key."
                if status == 401
                else "The connector's key may not do this."
            )
        if status in (429, 503):
            return PlatformBusyError("FleetPrompt asks to wait.", self._retry_after(answer))
        if status >= 500:
            return PlatformDownError(
                f"FleetPrompt has a fault of its own ({status}).",
                remedy="It is tried again by itself; if it lasts, tell FleetPrompt's operator.",
            )
        if problem is None:
            return _not_ours()
        return PlatformRefusedError(
            f"FleetPrompt refused the request ({status} {problem}).", problem, status=status
        )

    def _retry_after(self, answer: httpx.Response) -> float | None:
        """Seconds, whether given as such or as a date; a date counts from the answer's own."""
        given = answer.headers.get("retry-after", "").strip()
        if given.isdecimal():
            return min(float(given[:9]), _LONGEST_RETRY_AFTER)
        until = _date(given)
        if until is None:
            return None
        now = _date(answer.headers.get("date", "")) or self._clock.now()
        return min(max(0.0, (until - now).total_seconds()), _LONGEST_RETRY_AFTER)

    def _ahead(self, answer: httpx.Response) -> float | None:
        theirs = _date(answer.headers.get("date", ""))
        return None if theirs is None else (self._clock.now() - theirs).total_seconds()


def _json(answer: httpx.Response) -> Any:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or len(answer.content) > _LARGEST_ANSWER:
        raise _not_ours()
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        raise _not_ours() from None


def _answer(item: Any) -> Answer:
    try:
        if item["status"] in ("created", "duplicate"):
            UUID(item["id"])
            return Answer(item["status"])
        if item["status"] == "refused":
            pointers = tuple(str(one["pointer"]) for one in item.get("errors", ()))
            details = [f"{one['pointer']} {one['detail']}" for one in item.get("errors", ())]
            detail = "; ".join(details) or str(item["detail"])
            return Answer("refused", str(item["problem"]), detail, pointers)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise _not_ours()


def _problem(answer: httpx.Response) -> str | None:
    """The name of a problem as FleetPrompt answers it (RFC 9457), if this is one."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/problem+json":
        return None
    try:
        found = json.loads(answer.content)["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found.rpartition("#")[2] if isinstance(found, str) and "#" in found else None


def _key_refused(message: str) -> PlatformAuthError:
    return PlatformAuthError(
        message,
        remedy="Ask for a new code for this connector and `fleetprompt-edge pair CODE`; or make a new key "
        "and store it: `fleetprompt-edge secrets set api-key`. Then restart the connector.",
    )


def _not_ours() -> PlatformDownError:
    return PlatformDownError(
        "Something other than FleetPrompt answered, such as a network's login page or a proxy.",
        remedy="Open fleetprompt.base_url in a browser on this machine and see what answers.",
    )


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
