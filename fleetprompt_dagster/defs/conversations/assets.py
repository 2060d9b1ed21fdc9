"""Tenants' UTC days of website chat as files of the lake."""

from datetime import date

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import CONVERSATION_DAYS
from fleetprompt.lake.conversations import ConversationsReport, write_conversations
from fleetprompt.lake.places import LakePath
from fleetprompt.tenants.service import Tenant
from fleetprompt_dagster.defs.conversations.metadata import conversations_metadata
from fleetprompt_dagster.defs.signals.assets import materialize_days, signal_store
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.tables import table_asset


@table_asset(
    CONVERSATION_DAYS,
    name="conversations",
    domain="conversations",
    kinds={"postgres", "parquet"},
    deps=[signal_store],
    description=(
        "Counted in PostgreSQL: numbers, ids and times, nothing that was said. Days that change are written "
        "again by themselves (`rebuild_stale_days`), where a tenant has a chat."
    ),
)
def conversations(context: dg.AssetExecutionContext, platform: PlatformResource) -> None:
    """Write the conversations of the run's partitions."""
    materialize_days(context, platform, _write, conversations_metadata)


async def _write(
    database: Database, lake: LakePath, tenant: Tenant, day: date
) -> ConversationsReport:
    report = await write_conversations(database, lake, tenant, day)
    assert report is not None  # noqa: S101 - only without ``empty`` there may be none
    return report
