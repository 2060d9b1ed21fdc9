"""The lake in object storage: written, read, replaced and cleared away through a server that speaks S3."""

import asyncio
import io
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fleetprompt.cli.main import app
from fleetprompt.db.engine import Database
from fleetprompt.errors import InvalidError
from fleetprompt.lake.audit import differences
from fleetprompt.lake.columns import SIGNALS, TABLES
from fleetprompt.lake.compaction import compact
from fleetprompt.lake.exporting import export
from fleetprompt.lake.layout import day_file, days_with_files, replacing, tenant_files
from fleetprompt.lake.objects import ObjectPath
from fleetprompt.lake.places import place_of
from fleetprompt.lake.rebuild import describe, rebuild_days
from fleetprompt.lake.views import open_lake
from fleetprompt.retention.lake import remove_files
from fleetprompt.retention.pace import Pace
from fleetprompt.retention.signals import remove_signals
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, delete_tenant
from tests.lake.object_store import ACCESS_KEY, BUCKET, SECRET_KEY, object_store

Insert = Callable[..., Awaitable[None]]
DAYS = [date(2026, 3, 30), date(2026, 3, 31), date(2026, 4, 1)]


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture
def bucket() -> ObjectPath:
    """An empty lake."""
    return ObjectPath.parse(f"s3://{BUCKET}/{uuid4()}")


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


@pytest.fixture
async def filled(
    database: Database,
    bucket: ObjectPath,
    insert: Insert,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> tuple[Tenant, Tenant]:
    """Two tenants with four signals on each of the days."""
    both = (await new_tenant(), await new_tenant())
    for tenant in both:
        for day in DAYS:
            await insert(tenant, noon(day), many=4, inserted_at=noon(day))
        done = await rebuild_days(database, bucket, [(tenant.slug, day) for day in DAYS])
        assert [one.error for one in done] == [None] * 3
    return both


def ask(lake: ObjectPath, tenant: Tenant | None, query: str) -> list[tuple[object, ...]]:
    slug = tenant.slug if tenant else None
    with open_lake(str(lake), tenant=slug, locked=tenant is not None) as connection:
        return connection.sql(query).fetchall()


async def test_days_are_written_and_asked_as_in_a_folder(
    database: Database, bucket: ObjectPath, filled: tuple[Tenant, Tenant]
) -> None:
    one, other = filled
    assert days_with_files(bucket, one.slug) == DAYS
    assert await differences(database, bucket, one, DAYS) == []
    assert ask(bucket, one, "SELECT tenant, count(*) FROM signals GROUP BY ALL") == [(one.slug, 12)]
    by_day = "SELECT tenant, sum(signals) FROM daily_counts WHERE day > '2026-03-30' GROUP BY ALL"
    assert sorted(ask(bucket, None, by_day)) == sorted([(one.slug, 8), (other.slug, 8)])
    nothing = ask(bucket / "elsewhere", one, "SELECT count(*) FROM signals")
    assert nothing == [(0,)]


async def test_months_late_signals_retention_and_deletion_are_as_in_a_folder(
    database: Database,
    settings: Settings,
    bucket: ObjectPath,
    filled: tuple[Tenant, Tenant],
    insert: Insert,
) -> None:
    """Trap 24, in object storage."""
    one, other = filled
    assert await compact(database, bucket, one, date(2026, 5, 6)) == 4
    assert days_with_files(bucket, one.slug) == [DAYS[2]]
    gone = await remove_signals(database, bucket, one, date(2026, 4, 2), Pace(rows=5, rest=0))
    assert (gone.removed, gone.not_in_lake) == (12, {})
    await insert(one, noon(DAYS[1]), kind="late.one")
    await rebuild_days(database, bucket, [(one.slug, DAYS[1])])
    assert ask(bucket, one, "SELECT count(*) FROM signals") == [(13,)]
    assert await differences(database, bucket, one, DAYS) == []

    await remove_files(database, bucket, one, DAYS[2])
    assert ask(bucket, one, "SELECT count(*) FROM signals") == [(4,)]
    kept = tenant_files(bucket, other.slug)
    there = settings.model_copy(update={"lake_dir": str(bucket)})
    await delete_tenant(there, slug=one.slug, typed=one.slug)
    assert tenant_files(bucket, one.slug) == []
    assert tenant_files(bucket, other.slug) == kept


async def test_one_tenants_questions_cannot_reach_another_ones_objects(
    bucket: ObjectPath, filled: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    """Trap 21, in object storage: not by an address, a wildcard, a detour or an export, nor by writing."""
    one, other = filled
    own = str(day_file(bucket, SIGNALS, one.slug, DAYS[0]).parent)
    secret = str(day_file(bucket, SIGNALS, other.slug, DAYS[0]))
    before = day_file(bucket, SIGNALS, one.slug, DAYS[0]).stat()
    with open_lake(bucket, tenant=one.slug, locked=True) as connection:
        for hostile in (
            f"SELECT * FROM '{secret}'",
            f"SELECT * FROM '{own}/../../tenant={other.slug}/day={DAYS[0]}/part.parquet'",
            f"SELECT * FROM read_parquet('{bucket}/signals/*/*/part.parquet')",
            f"SELECT * FROM read_parquet('{bucket}/signals/tenant={one.slug}*/*/part.parquet')",
            f"SELECT * FROM glob('s3://{BUCKET}/*')",
            f"SELECT * FROM read_blob('{secret}')",
            "SELECT * FROM read_text('/etc/passwd')",
            f"COPY (SELECT 1) TO '{own}/part.parquet'",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            f"WITH gone AS (COPY (SELECT 1) TO '{own}/part.parquet') FROM gone",
            f"ATTACH '{own}/other.db'",
        ):
            with pytest.raises(duckdb.Error):
                connection.sql(hostile).fetchall()
    # Also without the lock another tenant's objects are not there.
    with open_lake(bucket, tenant=one.slug) as connection, pytest.raises(duckdb.Error):
        connection.sql(f"SELECT * FROM '{secret}'")
    with pytest.raises(duckdb.Error):
        export(bucket, one.slug, f"SELECT * FROM '{secret}'", tmp_path / "out.csv")
    assert not list(tmp_path.glob("*"))  # noqa: ASYNC240 - an empty folder
    assert day_file(bucket, SIGNALS, one.slug, DAYS[0]).stat() == before


async def test_the_commands_ask_and_export_objects(
    bucket: ObjectPath, filled: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    one, _ = filled

    def call(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*arguments, "--lake", str(bucket)])
        assert done.exit_code == code, done.output
        return done.output

    query = "SELECT day, count(*) AS n FROM signals GROUP BY ALL ORDER BY ALL"
    found = await asyncio.to_thread(call, "sql", query, "--tenant", one.slug, "--csv")
    assert found.splitlines() == ["day,n", *(f"{day},4" for day in DAYS)]
    target = tmp_path / "all.parquet"
    assert "Wrote 12 rows" in await asyncio.to_thread(call, "export", one.slug, str(target))
    assert pq.read_metadata(target).num_rows == 12


def test_a_reader_has_the_old_content_or_the_new_and_never_both(bucket: ObjectPath) -> None:
    target = bucket / "part.parquet"
    with replacing(target) as unfinished:
        unfinished.write_bytes(b"old" * 300_000)
    with target.open() as reader:
        assert reader.read(3) == b"old"
        with replacing(target) as unfinished:
            unfinished.write_bytes(b"new" * 300_000)
            with target.open() as another:
                assert another.read(3) == b"old"
        reader.seek(-3, io.SEEK_END)
        with pytest.raises(OSError, match="Replaced while it was read"):
            reader.read(3)
    with pytest.raises(ValueError, match="full"), replacing(target) as unfinished:
        unfinished.write_bytes(b"half")
        raise ValueError("full")
    with target.open() as reader:
        assert reader.read() == b"new" * 300_000


@pytest.mark.parametrize(
    "address",
    [
        "ftp://bucket/lake",
        "memory://bucket/lake",
        "s3://",
        "s3://key:secret@bucket/lake",
        "s3://bucket/lake?versionId=1",
        "s3://bucket/../lake",
        "s3://bucket/a//b",
        "s3://bucket/*",
    ],
)
def test_what_is_no_address_of_a_lake_is_refused(address: str) -> None:
    with pytest.raises(InvalidError) as refused:
        place_of(address)
    assert "secret" not in refused.value.detail


def test_nothing_says_what_the_credentials_are(
    bucket: ObjectPath, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a name, a message, a command's output nor a log, whatever the store answers."""
    said = [repr(bucket), str(bucket)]
    with caplog.at_level(logging.DEBUG):
        for path in (bucket / "nothing", ObjectPath("s3://no-such-bucket", "lake")):
            with pytest.raises(OSError, match="No such object") as missing:
                path.stat()
            said += [repr(missing.value), describe(missing.value)]
        with pytest.raises(OSError, match="does not serve") as refused:
            list(ObjectPath("s3://no-such-bucket", "lake").glob("signals/*"))
        said += [repr(refused.value), describe(refused.value), str(refused.value.__cause__)]
        for table in TABLES:
            path = day_file(bucket, table, "acme", DAYS[0])
            with replacing(path) as unfinished:
                unfinished.write_bytes(b"no Parquet")
        done = CliRunner().invoke(
            app, ["sql", "FROM signals", "--tenant", "acme", "--lake", str(bucket)]
        )
        assert done.exit_code == 1
        said.append(done.output)
    for text in (*said, caplog.text):
        for secret in (ACCESS_KEY, SECRET_KEY):
            assert secret not in text
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET_KEY
