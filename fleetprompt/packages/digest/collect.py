"""Collects a window's facts from a tenant's tables, in one set-based statement.

Which signals a digest counts (docs/decisions/digest-window-membership.md): a **cut** is the set of
signals stored before an instant, by transactions that had ended when the digest was collected. A
digest counts what is in its own cut and not in the cut before. A cut never changes once taken, so
every signal is counted exactly once, a commit that was in flight at collection included: the next
digest has it. Collecting again with the same two cuts gives the same facts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any, Self

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import TextClause

from fleetprompt import secrets
from fleetprompt.packages.digest.facts import DigestFacts, facts_from_rows
from fleetprompt.packages.digest.history import Past
from fleetprompt.packages.digest.rows import (
    ErrorGroup,
    Outcome,
    TypeCount,
    Usage,
    Waiting,
)
from fleetprompt.packages.digest.surfaces import SURFACE_TYPES
from fleetprompt.schedules.local_time import Window

# Groups of one kind that are listed; the rest is one row with exact counts.
LISTED = 200
_LISTED = {"most": LISTED, "surfaces": sorted(SURFACE_TYPES)}
_NO_TRANSACTION_YET = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cut:
    """The signals stored before ``at`` by transactions below ``horizon``.

    ``floor``: no signal outside the cut was stored by a transaction below it.
    """

    at: datetime
    horizon: int
    floor: int

    def as_json(self) -> dict[str, Any]:
        """For storing with the digest."""
        return {"at": self.at.isoformat(), "horizon": self.horizon, "floor": self.floor}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` wrote."""
        return cls(datetime.fromisoformat(stored["at"]), stored["horizon"], stored["floor"])


@dataclass(frozen=True, slots=True)
class Previous:
    """The window before, with what its digest stored.

    Without a ``cut`` (no digest was collected for it) membership is by time of storing alone;
    without what it ``told``, that is counted anew, by time. ``history`` are windows before it.
    """

    window: Window
    cut: Cut | None = None
    told: Past | None = None
    history: tuple[Past, ...] = ()


@dataclass(frozen=True, slots=True)
class Collected:
    """The facts, and the cut to store beside them for the next digest."""

    facts: DigestFacts
    cut: Cut


async def collect(
    session: AsyncSession,
    window: Window,
    previous: Previous | None = None,
    *,
    again: Cut | None = None,
) -> Collected:
    """The facts of ``window``, in a tenant's transaction that the caller has opened for it alone.

    A transaction that has written holds the horizon: what it and later ones stored then waits for
    the next digest.
    ``again`` is the stored cut of a digest to be made anew from the same signals. Raises
    ValueError if a cut is not one of this window's ends.
    """
    before = previous.cut if previous else None
    if before is not None and before.at > window.start:
        raise ValueError(f"The cut before ends at {before.at}, after {window.start}.")
    if again is not None and again.at != window.end:
        raise ValueError(f"The cut ends at {again.at}, the window at {window.end}.")
    # First the horizon, then the rows: a later statement sees at least what had ended by then.
    horizon = again.horizon if again else await _horizon(session)
    bounds = {
        "start": window.start,
        "end": window.end,
        "horizon": horizon,
        "floor": before.floor if before else 0,
        "before_horizon": before.horizon if before else _NO_TRANSACTION_YET,
        "before_end": before.at if before else window.start,
    }
    before_it = await _before(session, previous)
    facts, floor = await _facts(session, window, bounds, before_it)
    cut = Cut(window.end, horizon, horizon if floor is None else floor)
    return Collected(facts, again or cut)


async def _horizon(session: AsyncSession) -> int:
    return int((await session.execute(_statements()["horizon"])).scalar_one())


async def _before(session: AsyncSession, previous: Previous | None) -> tuple[Past, ...]:
    """The earlier windows; the last one as its digest told of it, else counted by time of storing."""
    if previous is None:
        return ()
    if previous.told is not None:
        return (*previous.history, previous.told)
    window = previous.window
    bounds = {
        "start": window.start,
        "end": window.end,
        "horizon": _NO_TRANSACTION_YET,
        "floor": 0,
        "before_horizon": _NO_TRANSACTION_YET,
        "before_end": window.start,
    }
    # So it is before the first digest of most tenants.
    if (await session.execute(_statements()["nothing"], bounds)).scalar_one():
        return (*previous.history, facts_from_rows(window).as_past())
    counted, _ = await _facts(session, window, bounds)
    return (*previous.history, counted.as_past())


async def _facts(
    session: AsyncSession, window: Window, bounds: dict[str, Any], before: tuple[Past, ...] = ()
) -> tuple[DigestFacts, int | None]:
    """The facts, and the floor of a cut at the window's end; None if nothing lies after it."""
    result = await session.execute(_statements()["facts"], {**bounds, **_LISTED})
    found = msgspec.json.decode(result.scalar_one(), type=_Found)
    errors = [
        replace(row, what=secrets.redact(row.what), message=secrets.redact(row.message))
        for row in found.errors
    ]
    facts = facts_from_rows(
        window,
        types=found.types,
        outcomes=found.outcomes,
        errors=errors,
        usage=found.usage[0],
        waiting=found.waiting,
        before=before,
    )
    return facts, found.floor[0].txid


class _Floor(msgspec.Struct):
    txid: int | None


class _Found(msgspec.Struct):
    """What the statement ``facts`` answers, as JSON: each part's rows by its name."""

    types: list[TypeCount]
    outcomes: list[Outcome]
    errors: list[ErrorGroup]
    usage: list[Usage]
    waiting: list[Waiting]
    floor: list[_Floor]


@lru_cache(maxsize=1)
def _statements() -> dict[str, TextClause]:
    """The statements of collect.sql by name; those of the facts as one that reads the sources once."""
    source = files(__package__).joinpath("collect.sql").read_text(encoding="utf-8")
    pieces = re.split(r"^-- name: (\w+)\n", source, flags=re.MULTILINE)[1:]
    named = dict(zip(pieces[::2], pieces[1::2], strict=True))
    parts = [
        f"'{name}', (SELECT coalesce(json_agg(part), '[]') FROM ({named.pop(name)}) AS part)"  # noqa: S608
        for name in _Found.__struct_fields__
    ]
    facts = f"{named.pop('sources')} SELECT CAST(json_build_object({', '.join(parts)}) AS text)"
    return {name: text(body) for name, body in {**named, "facts": facts}.items()}
