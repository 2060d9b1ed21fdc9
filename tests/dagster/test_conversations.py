"""A tenant's days of website chat: counted, shown, and written again when they change."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import dagster as dg
import pyarrow.parquet as pq
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.lake.columns import CONVERSATION_DAYS
from fleetprompt.lake.layout import day_file
from fleetprompt.lake.views import open_lake
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from tests.dagster.conftest import Bench
from tests.webchat.visiting import new_site

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
DAY, NEXT = NOON.date(), NOON.date() + timedelta(days=1)
ANSWERED = NOON + timedelta(hours=20)  # on the next day


def talk(bench: Bench, tenant: Tenant) -> None:
    """Three conversations: one answered at once, one on the next day, one never and escalated twice."""

    async def put(database: Database) -> None:
        await new_site(database, bench.settings, tenant)
        async with database.tenant(tenant.schema) as session:
            site = await session.scalar(text("SELECT id FROM website_chat_sites"))
            said = (
                [("visitor", 0), ("visitor", 5), ("agent", 30), ("visitor", 60), ("agent", 90)],
                [("agent", 0), ("visitor", 10), ("agent", 20 * 3600)],
                [("visitor", 1)],
            )
            for number, messages in enumerate(said):
                closed = NOON + timedelta(hours=1) if number == 0 else None
                conversation = ChatConversation(
                    id=new_id(),
                    site_id=site,
                    visitor_id=new_id(),
                    status="closed" if closed else "open",
                    closed_at=closed,
                    last_seq=len(messages),
                    inserted_at=NOON,
                    updated_at=NOON,
                )
                session.add(conversation)
                await session.flush()
                for seq, (role, seconds) in enumerate(messages, start=1):
                    session.add(
                        ChatMessage(
                            id=new_id(),
                            conversation_id=conversation.id,
                            seq=seq,
                            role=role,
                            content="canary words",
                            context={},
                            signal_id=new_id(),
                            inserted_at=NOON + timedelta(seconds=seconds),
                        )
                    )
            for kind in ("mattermost", "email"):
                at = int(NOON.timestamp() * 1000)
                values = {
                    "id": UUID(int=(at << 80) + new_id().int % 2**62),
                    "type": f"webchat.escalate_to_{kind}",
                    "of": str(conversation.id),
                }
                await session.execute(
                    text(
                        "INSERT INTO directives (id, type, params, idempotency_key, state, actor,"
                        " actor_role, changed_by) VALUES (:id, :type, jsonb_build_object("
                        "'conversation_id', CAST(:of AS text)), :type, 'pending', 'p', 'platform', 'p')"
                    ),
                    values,
                )

    bench.run(put)


def metadata_of(
    bench: Bench, result: dg.ExecuteInProcessResult, key: str
) -> dict[str, dg.MetadataValue]:
    """What Dagster keeps of a partition."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    entries = bench.instance.all_logs(result.run_id, of_type=kind)
    events = [entry.get_dagster_event() for entry in entries]
    (found,) = [
        event.step_materialization_data.materialization
        for event in events
        if event.asset_key == dg.AssetKey("conversations") and event.partition == key
    ]
    return dict(found.metadata)


def days(bench: Bench, tenant: Tenant, day: date) -> list[tuple[int | None, ...]]:
    path = day_file(bench.settings.lake, CONVERSATION_DAYS, tenant.slug, day)
    names = [column.name for column in CONVERSATION_DAYS.columns if column.kind == "bigint"]
    rows = pq.read_table(path, partitioning=None).to_pylist()
    return [tuple(row[name] for name in names) for row in rows]


def test_a_day_is_counted_shown_and_written_again_when_it_changes(bench: Bench) -> None:
    """First response on the day it was given, nothing that was said, and nothing for who has no chat."""
    tenant, other = bench.tenant(), bench.tenant()
    bench.add_partitions(tenant, other)
    talk(bench, tenant)
    config = {
        "ops": {
            "rebuild_tenant_days": {
                "config": {
                    "days": [
                        {"tenant": one.slug, "day": day.isoformat()}
                        for one in (tenant, other)
                        for day in (DAY, NEXT)
                    ]
                }
            }
        }
    }
    assert bench.execute("rebuild_stale_days", config).success
    assert not day_file(bench.settings.lake, CONVERSATION_DAYS, other.slug, DAY).exists()
    # started, ended, visitor's messages, replies, first response, escalations
    assert sorted(days(bench, tenant, DAY), key=str) == sorted(
        [(1, 1, 3, 2, 30_000, 0), (1, 0, 1, 1, None, 0), (1, 0, 1, 0, None, 2)], key=str
    )
    waited = round((ANSWERED - NOON).total_seconds() - 10) * 1000
    assert days(bench, tenant, NEXT) == [(0, 0, 0, 1, waited, 0)]

    # By hand, through the same function.
    result = bench.execute("__ASSET_JOB", partition_key=f"{NEXT}|{tenant.slug}")
    assert result.success
    metadata = metadata_of(bench, result, f"{NEXT}|{tenant.slug}")
    assert metadata["dagster/row_count"].value == 1
    assert metadata["first_response_seconds"].value == waited / 1000
    shown = str(metadata["by_day"].value)
    assert shown.startswith(
        f"![visitors' messages by day, {DAY} to {NEXT}; most on {DAY}, 5](data:image/png"
    )
    assert f"| {DAY} | 3 | 1 | 5 | 3 | 2 | 30 s |" in shown
    assert f"| {NEXT} | 0 | 0 | 0 | 1 | 0 | 19 h 59 min |" in shown
    assert "canary" not in bench.stored()
    with open_lake(bench.settings.lake, tenant=tenant.slug) as connection:
        query = "SELECT sum(visitor_messages), sum(replies), count(first_response_ms) FROM conversation_days"
        assert connection.sql(query).fetchall() == [(5, 4, 2)]
