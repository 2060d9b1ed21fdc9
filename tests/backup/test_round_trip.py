"""A tenant in a file and back: everything is equal, nothing is left behind, a copy keeps still."""

import asyncio
import base64
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from fleetprompt.backup.archive import read_manifest
from fleetprompt.backup.restoring import restore
from fleetprompt.backup.sealed import SEALED
from fleetprompt.backup.writing import back_up
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.service import request_directive
from fleetprompt.errors import ConflictError, InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.compaction import compact
from fleetprompt.lake.layout import tenant_files
from fleetprompt.lake.reading import rows_in_day
from fleetprompt.lake.rebuild import rebuild_days
from fleetprompt.retention.terms import set_term, terms_of
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Producer, read_one
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.read import Position, read_forward
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant, create_tenant, delete_tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.secret import Secret
from fleetprompt.vault.service import Vault, store_credential
from fleetprompt.webchat.models import ChatSiteSecret
from fleetprompt.webchat.site_secrets import make_secret, open_secret

SECRET = "correct horse battery staple"
EVENT = (
    b'{"type": "email.inbound.received", "source": "edge:proton_mail", "data": {"n": %d},'
    b' "occurred_at": "2026-03-08T12:00:00Z", "dedupe_key": "email_in:%d"}'
)
# Of each tenant's own schema, not of its content.
_ALSO_WITHOUT = {"signals": {"txid"}}


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"lake_dir": tmp_path / "lake"})


@pytest.fixture
async def writer(settings: Settings) -> AsyncIterator[SignalWriter]:
    made = SignalWriter(application_url(settings), settings)
    await made.start()
    yield made
    await made.close()


async def send(writer: SignalWriter, tenant: Tenant, number: int) -> tuple[str, UUID]:
    item = read_one(EVENT % (number, number), Producer())
    [stored] = await writer.submit(tenant.schema, [item])
    return stored.status, stored.id


def contents(kept: Settings, slug: str) -> dict[str, bytes]:
    """The tenant's files of the lake, by their addresses."""
    found = {}
    for file in tenant_files(kept.lake, slug):
        with file.open("rb") as opened:
            found[str(file)] = opened.read()
    return found


async def furnish(database: Database, kept: Settings, writer: SignalWriter) -> tuple[Tenant, UUID]:
    """A tenant with something in every part: signals, directives, ledger, logs, secrets, files."""
    tenant = await create_tenant(kept, slug=f"b{new_id().hex[-12:]}", name="Backed up")
    for number in range(20):
        await send(writer, tenant, number)
    vault = Vault(database, load_master_key(kept))
    data_key = await vault.current_key(tenant)
    installation, site, execution = new_id(), new_id(), new_id()
    async with database.tenant(tenant.schema) as session:
        for statement in (
            "INSERT INTO installations (id, package, version, state, config_checksum)"
            " VALUES (:installation, 'mattermost_daily_ops_digest', '1', 'connected', '')",
            "INSERT INTO website_chat_sites (id, site_key, name, status, mode, origins, settings)"
            " VALUES (:site, :site, 'Shop', 'active', 'native', '{https://shop.example}', '{}')",
            "INSERT INTO executions (id, kind, state, finished_at, result) VALUES (:execution,"
            " 'digest.run', 'completed', now(),"
            ' \'{"cut": {"at": "2026-03-08T00:00:00+00:00", "horizon": 77, "floor": 70}}\')',
            "INSERT INTO execution_logs (execution_id, level, message)"
            " SELECT :execution, 'info', E'tab\\t line\\n back\\\\slash ' || n FROM generate_series(1, 3) n",
            "INSERT INTO outbound_messages (id, dedupe_key, provider, destination, state, content_sha256)"
            " VALUES (:site, 'digest:1', 'mattermost', 'x', 'posted', '')",
            "INSERT INTO lake_days (day, signals_removed) VALUES ('2026-01-01', 3)",
        ):
            found = {"installation": installation, "site": site, "execution": execution}
            used = {name: value for name, value in found.items() if f":{name}" in statement}
            await session.execute(text(statement), used)
        credential = await store_credential(
            session,
            tenant,
            data_key,
            installation_id=installation,
            kind="webhook",
            label="chat.example",
            secret=Secret(SECRET),
        )
        await make_secret(session, tenant, data_key, site, "visitor", new_id())
        for number in range(3):
            await request_directive(
                session,
                tenant,
                "package.disable",
                {"installation_id": str(installation)},
                idempotency_key=f"k{number}",
                actor=Actor("operator", "platform"),
            )
    async with database.platform() as session:
        await add_member(session, tenant, email=f"{tenant.slug}@example.org", role="owner")
        await set_term(session, tenant, "signals", 45, by="operator")
        await issue_key(session, kept, tenant, KeyRequest(kind="user", name="k", role="owner"))
    day = datetime(2026, 3, 8, tzinfo=UTC).date()
    await rebuild_days(database, kept.lake, [(tenant.slug, day)])
    return tenant, credential.id


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows_of(kept: Settings, schema: str) -> dict[str, list[Any]]:
    """Every row of every table of the schema, sealed columns and transaction ids apart."""
    assert kept.database_url is not None
    found = {}
    with psycopg.connect(kept.database_url.get_secret_value()) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'alembic_version'",
            (schema,),
        ).fetchall()
        for (table,) in tables:
            columns = connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = %s AND table_name = %s ORDER BY 1",
                (schema, table),
            ).fetchall()
            out = {"key_id", "nonce", "ciphertext"} if table in SEALED else set()
            out |= _ALSO_WITHOUT.get(table, set())
            names = [name for (name,) in columns if name not in out]
            rows = connection.execute(
                sql.SQL("SELECT {} FROM {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(schema, table)
                )
            ).fetchall()
            found[table] = sorted(map(repr, rows))
    return found


async def test_what_is_gone_comes_back_with_everything_equal(
    database: Database, kept: Settings, writer: SignalWriter, tmp_path: Path
) -> None:
    tenant, credential = await furnish(database, kept, writer)
    before = rows_of(kept, tenant.schema)
    files = contents(kept, tenant.slug)
    target = tmp_path / "tenant.backup"
    await back_up(kept, tenant.slug, target)
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="under another name"):
        await restore(kept, target, live=True)
    await delete_tenant(kept, slug=tenant.slug, typed=tenant.slug)

    restored = await restore(kept, target, live=True)

    again = restored.tenant
    assert (again.slug, again.id == tenant.id) == (tenant.slug, False)
    assert (restored.lake_files, restored.secrets) == (len(files), 2)
    after = rows_of(kept, again.schema)
    # The one thing that changes: cuts of digests, whose transaction ids mean nothing any more.
    [execution] = before["executions"]
    changed = execution.replace("'floor': 70", "'floor': 0").replace(
        "'horizon': 77", "'horizon': 9223372036854775807"
    )
    assert changed != execution
    assert after == before | {"executions": [changed]}
    assert contents(kept, again.slug) == files
    # Secrets open for the new tenant, sealed under a data key of its own.
    vault = Vault(database, load_master_key(kept))
    assert (await vault.open_credential(again, credential)).reveal() == SECRET
    async with database.tenant(again.schema) as session:
        site_secret = (
            await session.scalars(text("SELECT id FROM website_chat_site_secrets"))
        ).one()
        stored = await session.get_one(ChatSiteSecret, site_secret)
        assert len(open_secret(await vault.key(again, stored.key_id), again, stored)) == 32
    # An old event is still a duplicate, and new rows come behind the old ones.
    assert (await send(writer, again, 7))[0] == "duplicate"
    assert (await send(writer, again, 70))[0] == "created"
    async with database.tenant(again.schema) as session:
        await session.execute(
            text(
                "INSERT INTO execution_logs (execution_id, level, message)"
                " SELECT id, 'info', 'next' FROM executions LIMIT 1"
            )
        )
        read = await read_forward(session, Position(), limit=500)
        assert read[-1].dedupe_key == "email_in:70"
        assert len(read) == len(before["signals"]) + 1
    async with database.platform() as session:
        terms = await terms_of(session, kept, again)
        assert (terms["signals"].days, terms["signals"].own) == (45, True)
        for table, many in (("members", 1), ("api_keys", 1)):
            found = await session.scalar(
                text(f"SELECT count(*) FROM fleetprompt.{table} WHERE organization_id = :id"),
                {"id": again.id},
            )
            assert found == many, table
        queued = await session.scalar(
            text("SELECT count(*) FROM fleetprompt.directive_queue WHERE tenant_schema = :schema"),
            {"schema": again.schema},
        )
        assert queued == 3
    await delete_tenant(kept, slug=again.slug, typed=again.slug)


async def test_a_copy_under_another_name_keeps_still(
    database: Database, kept: Settings, writer: SignalWriter, tmp_path: Path
) -> None:
    tenant, credential = await furnish(database, kept, writer)
    target = tmp_path / "tenant.backup"
    await back_up(kept, tenant.slug, target)
    before = rows_of(kept, tenant.schema)

    copy = (await restore(kept, target, slug=f"{tenant.slug}-copy")).tenant

    assert rows_of(kept, tenant.schema) == before
    after = rows_of(kept, copy.schema)
    for table in ("signals", "signal_keys", "directives", "outbound_messages", "execution_logs"):
        assert after[table] == before[table], table
    assert "'disabled'" in after["installations"][0]
    async with database.platform() as session:
        for table in ("directive_queue", "schedule_slots", "webchat_site_keys"):
            found = await session.scalar(
                text(f"SELECT count(*) FROM fleetprompt.{table} WHERE tenant_schema = :schema"),
                {"schema": copy.schema},
            )
            assert found == 0, table
    vault = Vault(database, load_master_key(kept))
    assert (await vault.open_credential(copy, credential)).reveal() == SECRET


async def test_another_master_key_is_refused_before_anything_is_made(
    database: Database, kept: Settings, writer: SignalWriter, tmp_path: Path
) -> None:
    tenant, _ = await furnish(database, kept, writer)
    target = tmp_path / "tenant.backup"
    await back_up(kept, tenant.slug, target)
    other = kept.model_copy(
        update={
            "master_key": type(kept.master_key)(base64.b64encode(os.urandom(32)).decode()),  # type: ignore[misc]
        }
    )
    with pytest.raises(ConflictError, match="without-secrets"):
        await restore(other, target, slug=f"{tenant.slug}-x")
    without = await restore(other, target, slug=f"{tenant.slug}-x", with_secrets=False)
    assert without.secrets == 0
    after = rows_of(kept, without.tenant.schema)
    assert after["integration_credentials"] == after["website_chat_site_secrets"] == []
    assert "disabled" in after["installations"][0]


async def test_a_damaged_backup_leaves_nothing_behind(
    database: Database, kept: Settings, writer: SignalWriter, tmp_path: Path
) -> None:
    tenant, _ = await furnish(database, kept, writer)
    target = tmp_path / "tenant.backup"
    await back_up(kept, tenant.slug, target)
    whole = target.read_bytes()
    name = f"{tenant.slug}-d"
    for damaged in (whole[: len(whole) // 2], b"", b"not a backup", whole[:400] + b"\0" * 99):
        target.write_bytes(damaged)
        with pytest.raises(InvalidError):
            await restore(kept, target, slug=name)
    target.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:

        async def fails(*_: object, **__: object) -> int:
            raise OSError("disk full")

        patch.setattr("fleetprompt.backup.restoring.seal_anew", fails)
        with pytest.raises(OSError, match="disk full"):
            await restore(kept, target, slug=name)
    async with database.platform() as session:
        left = text("SELECT count(*) FROM fleetprompt.organizations WHERE slug = :slug")
        assert await session.scalar(left, {"slug": name}) == 0
        schema = text("SELECT count(*) FROM pg_namespace WHERE nspname = :name")
        assert await session.scalar(schema, {"name": f"org_{name}"}) == 0
    assert names_in(tmp_path) == ["lake", "tenant.backup"]
    assert (await restore(kept, target, slug=name)).rows > 0


async def test_a_month_that_becomes_one_file_meanwhile_is_whole(
    database: Database,
    kept: Settings,
    writer: SignalWriter,
    tenant: Tenant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compaction takes the listed days away before they are copied; the lake alone has their signals."""
    for number in range(3):
        await send(writer, tenant, number)
    day = date(2026, 3, 8)
    await rebuild_days(database, kept.lake, [(tenant.slug, day)])
    copy = shutil.copyfileobj

    async def become_one_file() -> None:
        async with Database.application(kept) as other:
            await compact(other, kept.lake, tenant, date(2026, 6, 1))

    def compacting(source: Any, target: Any) -> None:
        monkeypatch.undo()
        asyncio.run(become_one_file())
        copy(source, target)

    monkeypatch.setattr("fleetprompt.backup.writing.shutil.copyfileobj", compacting)
    target = tmp_path / "one.backup"
    await back_up(kept, tenant.slug, target)
    restored = await restore(kept, target, slug=f"c{new_id().hex[-12:]}")
    try:
        assert rows_in_day(kept.lake, SIGNALS, restored.tenant.slug, day) == 3
    finally:
        await delete_tenant(kept, slug=restored.tenant.slug, typed=restored.tenant.slug)


async def test_a_tenant_that_is_not_there_makes_no_file(kept: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await back_up(kept, "nobody", tmp_path / "x.backup")
    assert not (tmp_path / "x.backup").exists()


async def test_every_sealed_column_is_known(kept: Settings, tenant: Tenant, tmp_path: Path) -> None:
    """A table with something sealed that restoring did not know would come back unreadable."""
    assert kept.database_url is not None
    async with await psycopg.AsyncConnection.connect(
        kept.database_url.get_secret_value()
    ) as connection:
        found = await connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = %s AND column_name = 'ciphertext'",
            (tenant.schema,),
        )
        assert {row[0] for row in await found.fetchall()} == set(SEALED)
    await back_up(kept, tenant.slug, tmp_path / "t")
    assert read_manifest(tmp_path / "t").slug == tenant.slug
