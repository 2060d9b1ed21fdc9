"""One tenant's night: everything that its terms say is due, and nothing else."""

from dataclasses import dataclass
from datetime import date, datetime

from fleetprompt.db.engine import Database
from fleetprompt.retention.lake import remove_files
from fleetprompt.retention.pace import Pace
from fleetprompt.retention.records import empty_directives, remove_executions
from fleetprompt.retention.signals import remove_signals
from fleetprompt.retention.terms import terms_of
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.retention import prune


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """How much was removed, and signals that stay because the lake has no file with them yet."""

    tenant: str
    signals: int = 0
    days_not_in_lake: tuple[date, ...] = ()
    lake_days: int = 0
    executions: int = 0
    directives: int = 0
    conversations: int = 0


async def apply_retention(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    now: datetime,
    pace: Pace | None = None,
) -> RetentionReport:
    """Remove what the tenant's terms say is due at ``now``. Safe to stop and to repeat at any point.

    Conversations come first, so that what they erase is out of the signals before these are looked at.
    """
    pace = pace or Pace()
    async with database.platform() as session:
        terms = await terms_of(session, settings, tenant)
    first_kept = {family: term.first_kept(now) for family, term in terms.items()}
    executions = directives = signals = files = 0
    missing: tuple[date, ...] = ()
    # Asked for without a term of the tenant's too: a site may have one of its own.
    conversations = await prune(database, tenant, first_kept["conversations"], now, pace)
    if day := first_kept["executions"]:
        executions = await remove_executions(database, tenant, day, pace)
    if day := first_kept["directives"]:
        directives = await empty_directives(database, tenant, day, pace)
    if day := first_kept["signals"]:
        gone = await remove_signals(database, settings.lake, tenant, day, pace)
        signals, missing = gone.removed, tuple(gone.not_in_lake)
    if day := first_kept["lake"]:
        files = await remove_files(database, settings.lake, tenant, day)
    return RetentionReport(
        tenant=tenant.slug,
        signals=signals,
        days_not_in_lake=missing,
        lake_days=files,
        executions=executions,
        directives=directives,
        conversations=conversations,
    )
