"""The terms of each tenant: its own where it has some, else the platform's."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.retention.families import FAMILIES, RULES, Family, check_days
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

_OWN = text("SELECT family, days FROM fleetprompt.retention_terms WHERE organization_id = :id")
_SET = text(
    "INSERT INTO fleetprompt.retention_terms (organization_id, family, days, changed_by)"
    " VALUES (:id, :family, :days, :by) ON CONFLICT (organization_id, family)"
    " DO UPDATE SET days = excluded.days, changed_by = excluded.changed_by, changed_at = now()"
)
_DROP = text(
    "DELETE FROM fleetprompt.retention_terms WHERE organization_id = :id AND family = :family"
)


@dataclass(frozen=True, slots=True)
class Term:
    """How many days a tenant keeps a family, None for ever, and whether it says so itself."""

    days: int | None
    own: bool

    def first_kept(self, now: datetime) -> date | None:
        """The oldest UTC day that is kept whole; None if all are."""
        if self.days is None:
            return None
        return now.astimezone(UTC).date() - timedelta(days=self.days)


async def terms_of(
    session: AsyncSession, settings: Settings, tenant: Tenant
) -> Mapping[Family, Term]:
    """A tenant's terms for every family."""
    own = {row.family: row.days for row in await session.execute(_OWN, {"id": tenant.id})}
    return {
        family: Term(own[family], own=True)
        if family in own
        else Term(RULES[family].default_days(settings), own=False)
        for family in FAMILIES
    }


async def set_term(
    session: AsyncSession, tenant: Tenant, family: Family, days: int | None, *, by: str
) -> None:
    """Give the tenant a term of its own: days, or None for ever. InvalidError for too few days."""
    await session.execute(
        _SET, {"id": tenant.id, "family": family, "days": check_days(family, days), "by": by}
    )


async def drop_term(session: AsyncSession, tenant: Tenant, family: Family) -> None:
    """The platform's default again."""
    await session.execute(_DROP, {"id": tenant.id, "family": family})
