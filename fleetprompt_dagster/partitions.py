"""The two grids: UTC days and local dates, each by tenant or, for very many tenants, alone.

The UI reads a grid well up to 100,000 partitions (Dagster's documented bound), so days are as many
as PostgreSQL keeps signals for, and tenants as many as then fit; the sensor of tenants says so when
they do not. Beyond about 1,500 tenants a deployment says ``FLEETPROMPT_DAGSTER_GRID=date``: partitions are
then dates, with tenants as rows of the metadata (docs/decisions/dagster-partitions.md). Older days stay in
the lake. No grid is finer than a day: partition events cost 11 to 18 ms each.
"""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from fleetprompt.settings import get_settings

MOST_PARTITIONS = 100_000
TENANTS = "tenants"


def grid_days(retained_days: int) -> int:
    """How many UTC days the grid has: those that PostgreSQL keeps, and today."""
    return min(retained_days + 1, MOST_PARTITIONS)


def most_tenants(days: int) -> int:
    """How many tenants a grid of so many days may have; local dates may be two more than UTC days."""
    return MOST_PARTITIONS // (days + 2)


def _daily(days: int, *, ahead: int) -> dg.DailyPartitionsDefinition:
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    return dg.DailyPartitionsDefinition(
        start_date=first.isoformat(), timezone="UTC", end_offset=ahead
    )


def days_by(today: date) -> int:
    """How many UTC days the grid of this process has by then: its first day moves when it is loaded."""
    return max(DAYS, (today - _LOADED_ON).days + DAYS)


BY_TENANT = get_settings().dagster_grid == "tenant"
DAYS = grid_days(get_settings().signal_retention_days)
_LOADED_ON = datetime.now(UTC).date()
tenants = dg.DynamicPartitionsDefinition(name=TENANTS)


def _grid(*, ahead: int) -> dg.PartitionsDefinition[str]:
    dates = _daily(DAYS, ahead=ahead)
    return dg.MultiPartitionsDefinition({"date": dates, "tenant": tenants}) if BY_TENANT else dates


# Today, in UTC, is a partition from its first minute.
utc_days = _grid(ahead=1)

# A date that begins in Kiritimati, 14 hours ahead of UTC, is a partition from its first minute.
local_dates = _grid(ahead=2)

# A digest of a local date ends within that date, somewhere between UTC+14 and UTC-12, and starts
# one day before it ends: from two UTC days before the date to one after. Without a mapping Dagster
# takes equal keys of the *whole* grid for equal, and where the definitions differ finds none at all.
_days_around = dg.TimeWindowPartitionMapping(
    start_offset=-2, end_offset=1, allow_nonexistent_upstream_partitions=True
)
utc_days_of_local_date: dg.PartitionMapping = (
    dg.MultiPartitionMapping(
        {
            "date": dg.DimensionPartitionMapping("date", _days_around),
            "tenant": dg.DimensionPartitionMapping("tenant", dg.IdentityPartitionMapping()),
        }
    )
    if BY_TENANT
    else _days_around
)


def partition_key(day: date, tenant: str) -> dg.MultiPartitionKey:
    """The key of a tenant's day, in either grid if it is by tenant."""
    return dg.MultiPartitionKey({"date": day.isoformat(), "tenant": tenant})


def cell_of(key: str) -> str:
    """The partition in which a tenant's day is shown: itself, or its date."""
    return str(key) if BY_TENANT else tenant_day(key)[1].isoformat()


def tenant_day(key: str) -> tuple[str, date]:
    """The tenant's slug and the day of a key such as ``2026-03-08|acme``."""
    day, _, tenant = key.partition("|")
    return tenant, date.fromisoformat(day)
