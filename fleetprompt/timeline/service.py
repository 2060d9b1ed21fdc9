"""Answering "what happened?" from one correlation id, or from the id of anything that has one.

Causation is followed both ways, round by round: each round gathers everything of the correlation ids
found last and then asks what caused that and what it caused. An object without a correlation id is
followed by its own id. Four statements answer for a chain that nothing else hangs on.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import NotFoundError
from fleetprompt.executions import reported
from fleetprompt.timeline.queries import FIND, GATHER, NEIGHBOURS
from fleetprompt.timeline.schemas import LeftOut, Timeline
from fleetprompt.timeline.wording import entry_of, moments_of, place_of, run_entries

ENTRIES = 500
MOST_ENTRIES = 1_000
MOST_CHAINS = 50
DEPTH = 5  # rounds of causes and consequences around what was asked for
SCAN_LIMIT = 20_000  # rows of a kind, in a round, that are counted and sorted
CONTENT_LIMIT = 2_048  # bytes of a signal's data beyond which only its page shows it

_ID = re.compile(
    r"(?:(?:signal|directive|execution|replay):)?"
    r"([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"
)
_NAMED = ("signal", "directive", "execution")


def object_id(text: str) -> UUID | None:
    """The id in ``<id>`` or ``directive:<id>``, and so on for the other kinds; None elsewhere."""
    found = _ID.fullmatch(text)
    return UUID(found[1]) if found else None


@dataclass(slots=True)
class _Search:
    """What has been asked for and found so far."""

    most: int
    chains: list[str]
    loose: list[UUID]
    asked: frozenset[str] = frozenset()
    rows: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    not_fetched: int = 0
    chains_left_out: int = 0
    exact: bool = True

    async def gather(
        self, session: AsyncSession, chains: Sequence[str], loose: Sequence[UUID]
    ) -> Sequence[Any]:
        """Everything of these; returns the rows."""
        found = (
            await session.execute(
                GATHER,
                {
                    "chains": list(chains),
                    "loose": list(loose),
                    "scan": SCAN_LIMIT,
                    "most": self.most,
                    "content": CONTENT_LIMIT,
                },
            )
        ).all()
        if found:
            self.not_fetched += found[0].total - len(found)
            self.exact = self.exact and not found[0].cut
        for row in found:
            self.rows.setdefault((row.kind, row.id, row.line, row.step), row)
        return found

    async def neighbours(
        self, session: AsyncSession, rows: Iterable[Any], *, follow: bool
    ) -> tuple[list[str], list[UUID]]:
        """New correlation ids, and ids of objects without one, next to ``rows``.

        Without ``follow``, or beyond the most that are followed, they are counted only.
        """
        causes: set[UUID] = set()
        names: set[str] = set()
        for row in rows:
            if row.kind in _NAMED or self._is_asked_replay(row):
                names.update((str(row.id), f"{row.kind}:{row.id}"))
            if row.causation_id is not None and (cause := object_id(row.causation_id)):
                causes.add(cause)
        if not names:
            return [], []
        room = MOST_CHAINS - len(self.chains) - len(self.loose) if follow else 0
        found = (
            await session.execute(
                NEIGHBOURS,
                {
                    "causes": list(causes),
                    "names": sorted(names),
                    "known": self.chains,
                    "seen": self.loose,
                    "scan": SCAN_LIMIT,
                    "most": max(room, 1),
                },
            )
        ).all()
        taken = found[:room]
        if found:
            self.chains_left_out += found[0].total - len(taken)
        chains = [row.correlation_id for row in taken if row.correlation_id is not None]
        loose = [row.id for row in taken if row.correlation_id is None]
        self.chains += chains
        self.loose += loose
        return chains, loose

    def _is_asked_replay(self, row: Any) -> bool:
        """A replay that was asked about; one that is only a cause would bring in all its other stories."""
        return row.kind == "replay" and row.correlation_id in self.asked

    async def add_reported(self, session: AsyncSession) -> None:
        """The executions of which agents' signals tell, beside those that have a row."""
        if not any(
            row.kind == "signal" and row.detail["type"].startswith("agent.execution.")
            for row in self.rows.values()
        ):
            return
        for told in await reported.of_chains(session, self.chains, self.loose, limit=self.most):
            for row in moments_of(told):
                self.rows[(row.kind, row.id, row.line, row.step)] = row


async def what_happened(
    session: AsyncSession, asked: str, *, limit: int = ENTRIES, dagster_url: str | None = None
) -> Timeline:
    """The timeline of a correlation id, or of a signal's, directive's or execution's id.

    In the tenant's transaction. At most ``limit`` entries, the earliest; at most 50 correlation ids,
    five steps of causation away; what is left out is counted. ``dagster_url`` without a trailing
    slash makes links to runs. NotFoundError when the tenant has nothing under ``asked``.
    """
    limit = max(1, min(limit, MOST_ENTRIES))
    search = _Search(limit, [asked], [])
    correlation_id: str | None = asked
    if (given := object_id(asked)) is not None:
        found = (await session.execute(FIND, {"id": given})).first()
        if found is not None:
            correlation_id = found.correlation_id
            if correlation_id is None:
                search.loose.append(given)
            elif correlation_id != asked:
                search.chains.append(correlation_id)
    search.asked = frozenset(search.chains)
    chains, loose = list(search.chains), list(search.loose)
    for step in range(DEPTH + 1):
        rows = await search.gather(session, chains, loose)
        chains, loose = await search.neighbours(session, rows, follow=step < DEPTH)
        if not chains and not loose:
            break
    if not search.rows:
        raise NotFoundError("There is nothing under this correlation id or id.")
    await search.add_reported(session)
    covered = [chain for chain in search.chains if chain != asked or _has(search, asked)]
    return _timeline(search, asked, correlation_id, covered, limit, dagster_url)


def _has(search: _Search, chain: str) -> bool:
    return any(row.correlation_id == chain for row in search.rows.values())


def _timeline(
    search: _Search,
    asked: str,
    correlation_id: str | None,
    covered: list[str],
    limit: int,
    dagster_url: str | None,
) -> Timeline:
    placed = [(place_of(row), entry_of(row)) for row in search.rows.values()]
    placed += run_entries(search.rows.values(), dagster_url)
    placed.sort(key=lambda one: one[0])
    entries = [entry for _, entry in placed]
    return Timeline(
        asked=asked,
        correlation_id=correlation_id,
        correlation_ids=covered,
        entries=entries[:limit],
        more=LeftOut(
            entries=search.not_fetched + max(0, len(entries) - limit),
            correlation_ids=search.chains_left_out,
            exact=search.exact,
        ),
    )
