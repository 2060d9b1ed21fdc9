"""What analysts use: months, typed columns, questions, exports, logins; and what they cannot reach."""

import csv
import json
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from fleetprompt.cli.main import app
from fleetprompt.db.engine import Database
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.lake.audit import differences
from fleetprompt.lake.columns import DAILY_COUNTS, SIGNALS
from fleetprompt.lake.compaction import compact
from fleetprompt.lake.exporting import export
from fleetprompt.lake.layout import day_file, days_with_files, month_file, replacing
from fleetprompt.lake.questions import QUESTIONS
from fleetprompt.lake.rebuild import rebuild_days
from fleetprompt.lake.views import open_lake
from fleetprompt.retention.lake import remove_files
from fleetprompt.retention.pace import Pace
from fleetprompt.retention.signals import remove_signals
from fleetprompt.settings import Settings
from fleetprompt.tenants.readers import READABLE, grant_reader, revoke_reader
from fleetprompt.tenants.service import Tenant

Insert = Callable[..., Awaitable[None]]
DAYS = [date(2026, 3, 30), date(2026, 3, 31), date(2026, 4, 1)]


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


@pytest.fixture
async def filled(
    database: Database,
    lake: Path,
    insert: Insert,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> tuple[Tenant, Tenant]:
    """Two tenants with the same days: executions that cost something, mail, and what fits no column."""
    both = (await new_tenant(), await new_tenant())
    for tenant, cost in zip(both, (0.25, 100.0), strict=True):
        for day in DAYS:
            for kind, data in (
                ("agent.execution.started", {"execution_id": f"x{day}", "agent": "triage"}),
                (
                    "agent.execution.completed",
                    {
                        "execution_id": f"x{day}",
                        "agent": "triage",
                        "cost_usd": cost,
                        "tokens_in": 7,
                    },
                ),
                ("email.inbound.received", {"from": "a@example.org", "subject": 'Say "hi", ok?'}),
                (
                    "odd.one",
                    {"cost_usd": "much", "tokens_in": 1.5, "agent": ["x"], "tokens_out": True},
                ),
            ):
                at = noon(day)
                await insert(tenant, at, kind=kind, data=json.dumps(data), inserted_at=at)
        await rebuild_days(database, lake, [(tenant.slug, day) for day in DAYS])
    return both


def ask(lake: Path, tenant: Tenant | None, query: str) -> list[tuple[object, ...]]:
    with open_lake(lake, tenant=tenant.slug if tenant else None) as connection:
        return connection.sql(query).fetchall()


async def test_typed_columns_hold_what_has_their_type(
    lake: Path, filled: tuple[Tenant, Tenant]
) -> None:
    one, _ = filled
    query = "SELECT agent, cost_usd, tokens_in, tokens_out FROM signals WHERE type = '{}' LIMIT 1"
    assert ask(lake, one, query.format("agent.execution.completed")) == [("triage", 0.25, 7, None)]
    assert ask(lake, one, query.format("odd.one")) == [(None, None, None, None)]


async def test_files_of_an_older_version_are_read_beside_new_ones(
    lake: Path, filled: tuple[Tenant, Tenant]
) -> None:
    one, _ = filled
    path = day_file(lake, SIGNALS, one.slug, DAYS[0])
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["agent", "cost_usd"]), path)
    assert ask(lake, one, "SELECT count(*), count(agent), sum(cost_usd) FROM signals") == [
        (12, 4, 0.5)
    ]


async def test_questions_have_answers(lake: Path, filled: tuple[Tenant, Tenant]) -> None:
    one, _ = filled
    assert ask(lake, one, "SELECT sum(cost_usd), sum(executions) FROM cost") == [(0.75, 3)]
    states = "SELECT state, count(*) FROM executions GROUP BY ALL"
    assert ask(lake, one, states) == [("completed", 3)]
    assert ask(lake, one, "SELECT DISTINCT sender FROM emails") == [("a@example.org",)]
    with open_lake(lake) as connection:
        for question in QUESTIONS:
            columns = connection.sql(f"SELECT * FROM {question.name}").columns
            assert columns[-2:] == ["tenant", "day"], question.name


async def test_months_become_one_file_and_every_answer_stays(
    database: Database, lake: Path, filled: tuple[Tenant, Tenant], insert: Insert
) -> None:
    one, other = filled
    queries = ("SELECT * FROM signals ORDER BY ALL", "SELECT * FROM daily_counts ORDER BY ALL")
    before = [ask(lake, None, query) for query in queries]
    assert await compact(database, lake, one, date(2026, 5, 5)) == 0
    assert await compact(database, lake, one, date(2026, 5, 6)) == 4
    assert days_with_files(lake, one.slug) == [DAYS[2]]
    assert days_with_files(lake, other.slug) == DAYS
    assert [ask(lake, None, query) for query in queries] == before
    assert await differences(database, lake, one, DAYS) == []

    # A late signal gives its day a file of its own, which is read in place of the month's rows.
    await insert(one, noon(DAYS[0]), kind="late.one")
    await rebuild_days(database, lake, [(one.slug, DAYS[0])])
    assert ask(lake, one, "SELECT count(*) FROM signals") == [(13,)]
    assert ask(lake, one, "SELECT sum(signals) FROM daily_counts") == [(13,)]
    assert await compact(database, lake, one, date(2026, 5, 6)) == 2
    assert ask(lake, one, "SELECT count(*) FROM signals WHERE day = '2026-03-30'") == [(5,)]


async def test_retention_reads_months_and_a_late_signal_joins_them(
    database: Database, lake: Path, filled: tuple[Tenant, Tenant], insert: Insert
) -> None:
    """Trap 24."""
    one, _ = filled
    await compact(database, lake, one, date(2026, 5, 6))
    gone = await remove_signals(database, lake, one, date(2026, 4, 2), Pace(rows=5, rest=0))
    assert (gone.removed, gone.not_in_lake) == (12, {})
    await insert(one, noon(DAYS[1]), kind="late.one")
    await rebuild_days(database, lake, [(one.slug, DAYS[1])])
    assert ask(lake, one, "SELECT count(*) FROM signals") == [(13,)]
    assert await differences(database, lake, one, DAYS) == []
    # The lake's own time: a month goes when all of it is old.
    assert await remove_files(database, lake, one, DAYS[1]) == 0
    assert month_file(lake, SIGNALS, one.slug, DAYS[0]).exists()
    await remove_files(database, lake, one, DAYS[2])
    for table in (SIGNALS, DAILY_COUNTS):
        assert not month_file(lake, table, one.slug, DAYS[0]).exists()
    assert ask(lake, one, "SELECT count(*) FROM signals") == [(4,)]


async def test_one_tenants_questions_cannot_reach_another_ones_files(
    lake: Path, filled: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    """Trap 21, for the lake: not by a view, a path, a setting, an attached database or an export."""
    one, other = filled
    secret = day_file(lake, SIGNALS, other.slug, DAYS[0])
    passed = day_file(lake, SIGNALS, one.slug, DAYS[0])
    sideways = f"{passed.parent}/../../tenant={other.slug}/day={DAYS[0]}/part.parquet"
    hostile = [
        f"SELECT * FROM {function}('{place}{path}')"
        for function in ("read_parquet", "read_text", "read_blob", "glob", "parquet_metadata")
        for place in ("", "file://", "lake://")
        for path in (
            secret,
            sideways,
            f"{lake}/signals/*/*/part.parquet",
            f"{lake}/signals/tenant={one.slug}*/*/part.parquet",
            f"{lake}/signals/tenant={one.slug}/../*/*/part.parquet",
            f"{lake}/**",
        )
    ] + [
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM 'lake://{secret}'",
        f"SELECT * FROM '{os.path.relpath(secret)}'",  # noqa: ASYNC240
        f"SELECT * FROM read_parquet(['lake://{passed}', 'lake://{secret}'])",
        f"SELECT * FROM read_parquet('lake://{passed}', encryption_config = {{footer_key: 'x'}})",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/proc/self/environ')",
        f"ATTACH '{tmp_path}/other.db'",
        f"ATTACH '{secret}' AS other (READ_ONLY)",
        f"IMPORT DATABASE '{lake}'",
        "SET enable_external_access = true",
        f"SET allowed_directories = ['{lake}']",
        "RESET allowed_directories",
        "SET lock_configuration = false",
        "INSTALL httpfs",
        f"LOAD '{tmp_path}/x.duckdb_extension'",
    ]
    with open_lake(lake, tenant=one.slug, locked=True) as connection:
        assert connection.sql("SELECT DISTINCT tenant FROM signals").fetchall() == [(one.slug,)]
        for query in hostile:
            with pytest.raises(duckdb.Error):
                connection.sql(query).fetchall()
        # Its own files may be read by their names too.
        own = f"SELECT count(*) FROM 'lake://{passed}'"
        assert connection.sql(own).fetchall() == [(4,)]
    for query in (f"SELECT * FROM '{secret}'", f"SELECT * FROM 'lake://{sideways}'"):
        with pytest.raises(duckdb.Error):
            export(lake, one.slug, query, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


async def test_a_link_to_another_ones_files_is_not_followed(
    lake: Path, filled: tuple[Tenant, Tenant]
) -> None:
    """Trap 21: neither a day's folder nor its file nor all of a tenant's; the lake may be a link."""
    one, other = filled
    for link, target in (
        (f"tenant={one.slug}/day=2026-05-01", f"tenant={other.slug}/day={DAYS[0]}"),
        (
            f"tenant={one.slug}/day={DAYS[0]}/part.parquet",
            f"tenant={other.slug}/day={DAYS[0]}/part.parquet",
        ),
        (f"tenant={one.slug}", f"tenant={other.slug}"),
    ):
        place = lake / "signals" / link
        kept = place.rename(lake / "kept") if place.exists() else None
        place.symlink_to(lake / "signals" / target)
        with (
            pytest.raises(duckdb.Error, match="a link"),
            open_lake(lake, tenant=one.slug, locked=True) as connection,
        ):
            connection.sql("SELECT * FROM signals").fetchall()
        place.unlink()
        if kept:
            kept.rename(place)
    elsewhere = lake.with_name("link to the lake")
    elsewhere.symlink_to(lake)
    with open_lake(elsewhere, tenant=one.slug, locked=True) as connection:
        assert connection.sql("SELECT count(*) FROM signals").fetchall() == [(12,)]


async def test_a_file_that_is_replaced_between_questions_is_read_anew(
    lake: Path, filled: tuple[Tenant, Tenant]
) -> None:
    """Files stay open between questions, but not what is no longer theirs to be told."""
    one, other = filled
    query = "SELECT max(cost_usd) FROM signals"
    with open_lake(lake, tenant=one.slug, locked=True) as connection:
        assert connection.sql(query).fetchall() == [(0.25,)]
        for day in DAYS:
            own, others = (day_file(lake, SIGNALS, slug, day) for slug in (one.slug, other.slug))
            with replacing(own) as unfinished:
                unfinished.write_bytes(others.read_bytes())
        assert connection.sql(query).fetchall() == [(100.0,)]
        folder = day_file(lake, SIGNALS, one.slug, DAYS[0]).parent
        folder.rename(lake / "moved")
        folder.symlink_to(day_file(lake, SIGNALS, other.slug, DAYS[0]).parent)
        with pytest.raises(duckdb.Error, match="a link"):
            connection.sql(query).fetchall()


async def test_one_tenants_questions_write_nothing(
    lake: Path, filled: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    """Not even over the tenant's own files, which may be the only ones that hold its past."""
    one, _ = filled
    own = day_file(lake, SIGNALS, one.slug, DAYS[0])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}  # noqa: ASYNC240
    with open_lake(lake, tenant=one.slug, locked=True) as connection:
        for place in ("", "lake://"):
            for target in (own, own.parent / "new.parquet", tmp_path / "out"):
                for query in (
                    f"COPY (SELECT 1 AS a) TO '{place}{target}'",
                    f"COPY (SELECT 1 AS a, 2 AS b) TO '{place}{target}' (PARTITION_BY a)",
                    f"WITH gone AS (COPY (SELECT 1 AS a) TO '{place}{target}') FROM gone",
                    f"EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{place}{target}'",
                    f"EXPORT DATABASE '{place}{target}'",
                    f"ATTACH '{place}{target}.db' AS other",
                ):
                    with pytest.raises(duckdb.Error):
                        connection.execute(query).fetchall()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before  # noqa: ASYNC240


async def test_exports_hold_the_answer_in_each_form(
    lake: Path, filled: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    one, _ = filled
    query = "SELECT id, type, occurred_at, data, day FROM signals ORDER BY occurred_at, id"
    for suffix in ("csv", "jsonl", "parquet"):
        assert export(lake, one.slug, query, tmp_path / f"x.{suffix}") == 12
        assert (tmp_path / f"x.{suffix}").stat().st_mode & 0o777 == 0o600
    with (tmp_path / "x.csv").open(newline="") as file:
        from_csv = list(csv.DictReader(file))
    from_json = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    from_parquet = pq.read_table(tmp_path / "x.parquet").to_pylist()
    for rows in (from_csv, from_json):
        assert [row["id"] for row in rows] == [row["id"] for row in from_parquet]
        assert [row["data"] for row in rows] == [row["data"] for row in from_parquet]
    assert from_json[0]["occurred_at"].startswith("2026-03-30T12:00:00")
    with pytest.raises(InvalidError, match=r"\.jsonl"):
        export(lake, one.slug, query, tmp_path / "x.xlsx")


async def test_a_reading_login_sees_its_own_tenant_and_changes_nothing(
    database: Database, settings: Settings, filled: tuple[Tenant, Tenant]
) -> None:
    one, other = filled
    reader = await grant_reader(settings, one.slug)
    assert "password" not in repr(reader)
    async with database.tenant(one.schema) as session:
        tables = set(
            await session.scalars(
                text("SELECT tablename FROM pg_tables WHERE schemaname = :s"), {"s": one.schema}
            )
        )
    with psycopg.connect(reader.url, autocommit=True) as connection:
        for table in READABLE:
            connection.execute(f"SELECT * FROM {table} LIMIT 1".encode())
        found = connection.execute("SELECT count(*) FROM signals").fetchone()
        assert found == (12,)
        connection.execute("SET default_transaction_read_only = off")
        for hostile in (
            f'SELECT * FROM "{other.schema}".signals',
            "SELECT * FROM fleetprompt.api_keys",
            "SELECT * FROM fleetprompt.organizations",
            "DELETE FROM signals",
            "INSERT INTO lake_days (day) VALUES (now())",
            "CREATE TABLE mine (a int)",
            "CREATE TEMPORARY TABLE mine (a int)",
            f'SET ROLE "{other.schema}"',
            f'SET ROLE "{one.schema}"',
            *(f"SELECT * FROM {table}" for table in sorted(tables - set(READABLE))),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(hostile.encode())
        renewed = await grant_reader(settings, one.slug)
        assert renewed.url != reader.url
        await revoke_reader(settings, one.slug)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(renewed.url)
    with pytest.raises(NotFoundError):
        await revoke_reader(settings, one.slug)


def test_the_commands_ask_and_export(
    lake: Path, filled: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    one, _ = filled
    runner = CliRunner()

    def call(*arguments: str, code: int = 0) -> str:
        done = runner.invoke(app, [*arguments, "--lake", str(lake)])
        assert done.exit_code == code, done.output
        return done.output

    query = "SELECT type, count(*) AS n FROM signals WHERE type LIKE 'email%' GROUP BY ALL"
    assert call("sql", query, "--tenant", one.slug, "--csv").splitlines() == [
        "type,n",
        "email.inbound.received,3",
    ]
    assert "email.inbound.received" in call("sql", query)
    assert "Wrote 12 rows" in call("export", one.slug, str(tmp_path / "all.parquet"))
    assert "error" in call("sql", "SELECT nonsense", code=1)
    own = day_file(lake, SIGNALS, one.slug, DAYS[0])
    refused = call("sql", f"COPY (SELECT 1) TO 'lake://{own}'", "--tenant", one.slug, code=1)
    assert refused.startswith(f"error: PermissionError: lake://{own.parent}/")
    assert refused.endswith("part.parquet: the lake is only read\n")
