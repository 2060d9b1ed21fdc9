"""Writing many tenants' days, several at once, where one that fails does not stop the others."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy.exc import DBAPIError

from fleetprompt.db.engine import Database
from fleetprompt.errors import FleetPromptError, NotFoundError
from fleetprompt.lake.conversations import ConversationsReport, write_conversations
from fleetprompt.lake.days import CountsReport, DayReport, write_daily_counts, write_signals
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.stale import read_marks
from fleetprompt.tenants.service import Tenant, active_tenants

# Days written at once; one connection each.
CONCURRENCY = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RebuiltDay:
    """A tenant's day: its reports, or why there are none; ``conversations`` only where it had any.

    ``marks`` are the marks that the files now answer; forget them once the reports are kept.
    """

    tenant: str
    day: date
    marks: tuple[int, ...] = ()
    signals: DayReport | None = None
    counts: CountsReport | None = None
    conversations: ConversationsReport | None = None
    error: str | None = None


async def rebuild_days(
    database: Database, lake: LakePath, days: Sequence[tuple[str, date]]
) -> list[RebuiltDay]:
    """Write every table of each ``(slug, day)``, and say how each went, in order."""
    # Before the days are read, so that the files hold whatever these marks stand for.
    marks = await read_marks(database, days)
    async with database.platform() as session:
        tenants = {tenant.slug: tenant for tenant in await active_tenants(session)}
    at_once = asyncio.Semaphore(CONCURRENCY)

    async def one(slug: str, day: date) -> RebuiltDay:
        async with at_once:
            return await _rebuild(
                database, lake, tenants.get(slug), slug, day, tuple(marks.get((slug, day), ()))
            )

    return list(await asyncio.gather(*(one(slug, day) for slug, day in days)))


async def _rebuild(
    database: Database,
    lake: LakePath,
    tenant: Tenant | None,
    slug: str,
    day: date,
    marks: tuple[int, ...],
) -> RebuiltDay:
    try:
        if tenant is None:
            raise NotFoundError(f"There is no tenant {slug!r}.")
        signals = await write_signals(database, lake, tenant, day)
        counts = await write_daily_counts(database, lake, tenant, day)
        chat = await write_conversations(database, lake, tenant, day, empty=False)
    except Exception as error:  # noqa: BLE001 - whatever one tenant's day raises, the others go on
        reason = describe(error)
        logger.warning(
            "the day was not written: %s", reason, extra={"tenant": slug, "day": str(day)}
        )
        return RebuiltDay(slug, day, error=reason)
    return RebuiltDay(slug, day, marks, signals, counts, chat)


def describe(error: BaseException) -> str:
    """What operators may read of an error: never a row's content, which drivers put in theirs."""
    if isinstance(error, FleetPromptError):
        return error.detail
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        return f"PostgreSQL refused: {type(error.orig).__name__}, SQLSTATE {state}"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error.strerror or 'the file could not be used'}"
    return type(error).__name__
