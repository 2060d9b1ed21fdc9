"""The two grids: UTC days and local dates, each by tenant.

The UI reads a grid well up to 100,000 partitions (Dagster's documented bound), so days are as many
as PostgreSQL keeps signals for, and tenants as many as then fit; the sensor of tenants says so when
they do not. Beyond about 1,500 tenants the assets should be partitioned by date alone, with tenants
as rows of the metadata (docs/decisions/dagster-partitions.md). Older days stay in the lake. No grid is
finer than a day: partition events cost 11 to 18 ms each.
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


DAYS = grid_days(get_settings().signal_retention_days)
tenants = dg.DynamicPartitionsDefinition(name=TENANTS)

# Today, in UTC, is a partition from its first minute.
utc_days = dg.MultiPartitionsDefinition({"date": _daily(DAYS, ahead=1), "tenant": tenants})

# A date that begins in Kiritimati, 14 hours ahead of UTC, is a partition from its first minute.
local_dates = dg.MultiPartitionsDefinition({"date": _daily(DAYS, ahead=2), "tenant": tenants})

# A digest of a local date ends within that date, somewhere between UTC+14 and UTC-12, and starts
# one day before it ends: from two UTC days before the date to one after. Without a mapping Dagster
# takes equal keys of the *whole* grid for equal, and where the definitions differ finds none at all.
utc_days_of_local_date = dg.MultiPartitionMapping(
    {
        "date": dg.DimensionPartitionMapping(
            "date",
            dg.TimeWindowPartitionMapping(
                start_offset=-2, end_offset=1, allow_nonexistent_upstream_partitions=True
            ),
        ),
        "tenant": dg.DimensionPartitionMapping("tenant", dg.IdentityPartitionMapping()),
    }
)


def partition_key(day: date, tenant: str) -> dg.MultiPartitionKey:
    """The key of a tenant's day in either grid."""
    return dg.MultiPartitionKey({"date": day.isoformat(), "tenant": tenant})


def tenant_day(key: str) -> tuple[str, date]:
    """The tenant's slug and the day of a key such as ``2026-03-08|acme``."""
    day, _, tenant = key.partition("|")
    return tenant, date.fromisoformat(day)
