"""A tenant with an installed package, signals that its handlers know, and replays of them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    directive_types,
)
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.handlers import DirectiveRequest, Handler, Handlers, SignalView
from fleetprompt.signals.replays import service
from fleetprompt.signals.replays.handlers import ReplayWork
from fleetprompt.signals.replays.models import Replay, ReplayFinding
from fleetprompt.signals.replays.selection import Selection
from fleetprompt.tenants.service import Tenant

PACKAGE = "mattermost_daily_ops_digest"
TYPE = "mail.received"
START = datetime(2026, 1, 6, 9, 0, tzinfo=UTC)
EVERYTHING = Selection(occurred_from=datetime(2000, 1, 1, tzinfo=UTC))
OWNER = Actor("user:ada", "owner")


class NoteParams(DirectiveParams):
    """What to note."""

    number: int


def note(signal: SignalView) -> list[DirectiveRequest]:
    """One directive for each number."""
    number = signal.data["number"]
    return [DirectiveRequest("test.note", {"number": number}, f"note:{number}")]


@dataclass
class Replays:
    """One tenant's replays, asked for and worked off; ``noted`` is every effect that took place."""

    database: Database
    settings: Settings
    tenant: Tenant
    handlers: Mapping[str, Handler] = field(default_factory=lambda: {TYPE: note})
    work_: ReplayWork = field(default_factory=ReplayWork)
    noted: list[int] = field(default_factory=list)

    def table(self) -> Handlers:
        return Handlers.of([(PACKAGE, self.handlers)])

    def types(self) -> dict[str, AnyDirectiveType]:
        async def make_note(context: HandlerContext, params: NoteParams) -> dict[str, Any]:
            self.noted.append(params.number)
            return {}

        work = replace(self.work_, handlers=self.table, types=self.types)
        offered: Sequence[AnyDirectiveType] = (
            DirectiveType("test.note", "Notes.", NoteParams, make_note),
            *work.directive_types(),
        )
        return {**directive_types(), **{kind.name: kind for kind in offered}}

    async def install(self, package: str = PACKAGE, state: str = "installed") -> UUID:
        """The package is there, however it came."""
        made = new_id()
        async with self.database.tenant(self.tenant.schema) as session:
            await session.execute(
                text(
                    "INSERT INTO installations (id, package, version, state, config_checksum)"
                    " VALUES (:id, :package, '1.0.0', :state, '')"
                ),
                {"id": made, "package": package, "state": state},
            )
        return made

    async def tell(self, count: int, first: int = 0, **rest: Any) -> list[UUID]:
        """``count`` signals with numbers, a minute apart."""
        async with self.database.tenant(self.tenant.schema) as session:
            return [
                await emit(
                    session,
                    NewSignal(
                        **{
                            "type": TYPE,
                            "source": "edge:mail",
                            "occurred_at": START + timedelta(minutes=number),
                            "data": {"number": number},
                            "correlation_id": f"mail:{number}",
                            **rest,
                        }
                    ),
                )
                for number in range(first, first + count)
            ]

    async def ask(
        self, selection: Selection = EVERYTHING, *, live: bool = False, actor: Actor = OWNER
    ) -> Replay:
        async with self.database.tenant(self.tenant.schema) as session:
            return await service.ask_for_replay(
                session, self.tenant, selection, live=live, actor=actor, types=self.types()
            )

    async def replay(self, selection: Selection = EVERYTHING, *, live: bool = False) -> Replay:
        """Ask and work off everything that follows."""
        asked = await self.ask(selection, live=live)
        await self.work()
        return await self.get(asked.id)

    async def work(self, owner: str = "test-worker") -> None:
        """Work off all of the tenant's directives, those that come of them too; delays passed over."""
        async with DirectiveRunner(
            self.database, self.settings, owner=owner, types=self.types()
        ) as runner:
            while waiting := await self.waiting():
                await runner.work(self.tenant, waiting)

    async def waiting(self) -> list[UUID]:
        async with self.database.tenant(self.tenant.schema) as session:
            await session.execute(
                text(
                    "UPDATE directives SET available_at = now(), changed_by = 'test'"
                    " WHERE state = 'pending' AND available_at > now()"
                )
            )
            found = await session.scalars(
                text("SELECT id FROM directives WHERE state = 'pending' ORDER BY priority DESC, id")
            )
            return list(found)

    async def leases_end(self) -> None:
        """As after the death of every worker."""
        async with self.database.tenant(self.tenant.schema) as session:
            await session.execute(
                text(
                    "UPDATE directives SET state = 'pending', lease_token = NULL,"
                    " lease_owner = NULL, lease_expires_at = NULL, changed_by = 'test'"
                    " WHERE state = 'running'"
                )
            )

    async def get(self, replay_id: UUID) -> Replay:
        async with self.database.tenant(self.tenant.schema) as session:
            return await service.get_replay(session, replay_id)

    async def until_read(self, replay_id: UUID, signals: int) -> None:
        """Until so many signals of a replay were read."""
        async with asyncio.timeout(30):
            while (await self.get(replay_id)).signals_read < signals:
                await asyncio.sleep(0.005)

    async def findings(self, replay: Replay, outcome: Any = None) -> list[ReplayFinding]:
        async with self.database.tenant(self.tenant.schema) as session:
            found = await service.list_findings(session, replay.id, outcome=outcome, limit=200)
            return found[::-1]

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.database.tenant(self.tenant.schema) as session:
            return list((await session.execute(text(query), values)).all())

    async def notes(self) -> list[Any]:
        """The directives that handlers asked for."""
        return await self.rows("SELECT * FROM directives WHERE type = 'test.note' ORDER BY id")


def counts(replay: Replay) -> dict[str, int]:
    """The counts of a replay that are not zero."""
    names = (
        *("signals_read", "would_request", "requested"),
        *("duplicates", "refused", "handlers_failed"),
    )
    return {name: value for name in names if (value := getattr(replay, name))}
