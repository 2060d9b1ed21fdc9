"""Restoring a tenant from its backup, under its own name or another one, into any server.

Everything that commits does so in one transaction; a restore that fails leaves nothing behind.
"""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from psycopg import AsyncConnection, sql
from sqlalchemy import text

from fleetprompt.backup.archive import Manifest, Table, read_manifest, unpack
from fleetprompt.backup.catalogue import DUE_WORK
from fleetprompt.backup.sealed import SEALED, check_master_key, former_data_keys, seal_anew
from fleetprompt.db.engine import Database
from fleetprompt.db.migrate import head, known_revision, migrate_tenant
from fleetprompt.db.roles import create_tenant_schema, drop_tenant_schema
from fleetprompt.db.urls import owner_url
from fleetprompt.errors import ConflictError
from fleetprompt.ids import new_id
from fleetprompt.lake.layout import remove_tenant_files, replacing, tenant_files
from fleetprompt.lake.places import LakePath
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, check_slug, schema_of
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault

# Only a live restore takes these: with them the copy would act, and be known by the same keys.
_LIVE_ALONE = (*DUE_WORK, "approvals_waiting", "api_keys")

# Transaction ids belong to a server: with 0 every signal counts as settled, a replay that is open begins
# again, and digests, whose stored cuts then have no transaction yet, decide by time.
_NO_TRANSACTION_YET = '{"horizon": 9223372036854775807, "floor": 0}'
_FORGET_TRANSACTIONS = (
    "UPDATE executions SET result = jsonb_set(result, '{{cut}}', result -> 'cut' || {cut})"
    " WHERE result -> 'cut' IS NOT NULL",
    "UPDATE replays SET before_txid = 1, cursor_txid = 0, signals_read = 0,"
    " cursor_id = '00000000-0000-0000-0000-000000000000'",
)
_MARK_DAYS = (
    "INSERT INTO fleetprompt.stale_partitions (tenant_schema, day)"
    " SELECT DISTINCT {schema}, (occurred_at AT TIME ZONE 'UTC')::date FROM signals"
)
_SEQUENCES = (
    "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
    " WHERE c.relkind = 'r' AND c.relnamespace = %s::regnamespace AND a.attidentity <> ''"
)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: the tenant, its rows, its files, and how many secrets were sealed anew."""

    tenant: Tenant
    rows: int
    lake_files: int
    secrets: int


async def restore(
    settings: Settings,
    source: Path,
    *,
    slug: str | None = None,
    live: bool = False,
    with_secrets: bool = True,
) -> Restored:
    """Make a tenant from a backup. ``slug`` is its name, unset: the one it had.

    Unless ``live`` it is a copy to look at: its packages are disabled, nothing that was due is due, and
    no API key or site key comes along. ``live`` is for bringing back what is gone. ConflictError if
    there is such a tenant already or if its secrets cannot be opened; InvalidError for a damaged file.
    """
    manifest = await asyncio.to_thread(read_manifest, source)
    slug = check_slug(slug or manifest.slug)
    if not known_revision("tenant", manifest.revision):
        raise ConflictError(
            f"The backup is at revision {manifest.revision}, which this version does not know. Upgrade first."
        )
    master_key = load_master_key(settings)
    if with_secrets:
        check_master_key(manifest, master_key)
    with tempfile.TemporaryDirectory(
        prefix=".restore-", dir=source.parent, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        await asyncio.to_thread(unpack, source, folder)
        former = UUID(manifest.tenant_id)
        keys = former_data_keys(folder, former, master_key) if with_secrets else {}
        tenant = await _begin(settings, manifest, slug)
        try:
            await asyncio.to_thread(_empty_schema, owner_url(settings), tenant, manifest)
            async with Database.owner(settings) as owner:
                data_key = await Vault(owner, master_key).current_key(tenant)
            async with await AsyncConnection.connect(owner_url(settings)) as connection:
                rows = await _load(connection, folder, manifest, tenant, live=live)
                if with_secrets:
                    secrets = await seal_anew(
                        connection, tenant.schema, former, keys, tenant.id, data_key
                    )
                else:
                    secrets = 0
                    await _forget_secrets(connection, tenant.schema)
            await asyncio.to_thread(migrate_tenant, owner_url(settings), tenant.schema)
            files = await asyncio.to_thread(
                _restore_lake, folder / "lake", settings.lake, manifest.slug, slug
            )
        except BaseException:
            await _give_up(settings, tenant)
            raise
        await _finish(settings, tenant)
    return Restored(tenant, rows, files, secrets)


async def _begin(settings: Settings, manifest: Manifest, slug: str) -> Tenant:
    tenant = Tenant(new_id(), slug, schema_of(slug))
    async with Database.owner(settings) as owner, owner.platform() as session:
        made = await session.scalar(
            text(
                "INSERT INTO fleetprompt.organizations (id, slug, name, schema_name, state)"
                " VALUES (:id, :slug, :name, :schema, 'creating') ON CONFLICT DO NOTHING RETURNING id"
            ),
            {"id": tenant.id, "slug": slug, "name": manifest.name, "schema": tenant.schema},
        )
        if made is None:
            raise ConflictError(
                f"There is a tenant {slug!r} already. Restore it under another name with --as."
            )
        if await asyncio.to_thread(tenant_files, settings.lake, slug):
            raise ConflictError(
                f"The lake has files of a tenant {slug!r} that is gone. Move them away, or restore it "
                "under another name with --as."
            )
    return tenant


def _empty_schema(url: str, tenant: Tenant, manifest: Manifest) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        create_tenant_schema(connection, tenant.schema)
    migrate_tenant(url, tenant.schema, manifest.revision)


async def _load(
    connection: AsyncConnection, folder: Path, manifest: Manifest, tenant: Tenant, *, live: bool
) -> int:
    schema = sql.Identifier(tenant.schema)
    await connection.execute(sql.SQL("SET LOCAL search_path = {}").format(schema))
    await connection.execute("ALTER TABLE signals ALTER COLUMN txid SET DEFAULT 0")
    rows = 0
    for table in manifest.tables:
        place = sql.Identifier(tenant.schema, table.name)
        # What triggers would make of the rows is in the backup already.
        await connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(place))
        # Migrations may have put rows there.
        await connection.execute(sql.SQL("DELETE FROM {}").format(place))
        rows += await _copy(connection, place, table, folder / "tables" / table.name)
        await connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(place))
    await connection.execute(
        "ALTER TABLE signals ALTER COLUMN txid SET DEFAULT pg_current_xact_id()::text::bigint"
    )
    for statement in _FORGET_TRANSACTIONS:
        await connection.execute(sql.SQL(statement).format(cut=sql.Literal(_NO_TRANSACTION_YET)))
    await connection.execute(sql.SQL(_MARK_DAYS).format(schema=sql.Literal(tenant.schema)))
    await _continue_sequences(connection, tenant.schema)
    for table in manifest.platform_tables:
        if live or table.name not in _LIVE_ALONE:
            await _load_platform(connection, table, folder / "platform" / table.name, tenant)
    if not live:
        await connection.execute("UPDATE installations SET state = 'disabled'")
    return rows


async def _copy(
    connection: AsyncConnection, place: sql.Composable, table: Table, path: Path
) -> int:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(place, columns)
    async with connection.cursor() as cursor:
        async with cursor.copy(statement) as copy:
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    await copy.write(data)
        return cursor.rowcount


async def _continue_sequences(connection: AsyncConnection, schema: str) -> None:
    quoted = sql.Identifier(schema).as_string(connection)
    for table, column in await (await connection.execute(_SEQUENCES, (quoted,))).fetchall():
        await connection.execute(
            sql.SQL(
                "SELECT setval(pg_get_serial_sequence({}, {}), max({})) FROM {} HAVING max({}) > 0"
            ).format(
                sql.Literal(sql.Identifier(schema, table).as_string(connection)),
                sql.Literal(column),
                sql.Identifier(column),
                sql.Identifier(schema, table),
                sql.Identifier(column),
            )
        )


async def _load_platform(
    connection: AsyncConnection, table: Table, path: Path, tenant: Tenant
) -> None:
    """Rows of a table that others share, as this tenant's; what is there already stays as it is.

    A person who is known here by the same address is that person.
    """
    waiting = sql.Identifier("pg_temp", f"restored_{table.name}")
    await connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(
            waiting,
            sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(c)) for c in table.columns),
        )
    )
    await _copy(connection, waiting, table, path)
    present = await connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attidentity = ''",
        (f"fleetprompt.{table.name}",),
    )
    names: list[sql.Composable] = []
    values: list[sql.Composable] = []
    for name, kind in await present.fetchall():
        if name not in table.columns:
            continue
        names.append(sql.Identifier(name))
        if name == "tenant_schema":
            values.append(sql.Literal(tenant.schema))
        elif name == "organization_id":
            values.append(sql.SQL("{}::uuid").format(sql.Literal(tenant.id)))
        elif name == "user_id":
            values.append(_KNOWN_PERSON)
        else:
            values.append(sql.SQL("r.{}::{}").format(sql.Identifier(name), sql.SQL(kind)))
    await connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} r ON CONFLICT DO NOTHING").format(
            sql.Identifier("fleetprompt", table.name),
            sql.SQL(", ").join(names),
            sql.SQL(", ").join(values),
            waiting,
        )
    )


_KNOWN_PERSON = sql.SQL(
    "(SELECT known.id FROM fleetprompt.users known JOIN pg_temp.restored_users was"
    " ON lower(was.email) = lower(known.email) WHERE was.id = r.user_id)"
)


async def _forget_secrets(connection: AsyncConnection, schema: str) -> None:
    for table in SEALED:
        await connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)))
    await connection.execute(
        sql.SQL(
            "UPDATE {} SET state = 'degraded', last_error_kind = 'auth', last_error_at = now(),"
            " last_error = 'Restored without credentials: enter them again.'"
            " WHERE state IN ('installed', 'connected')"
        ).format(sql.Identifier(schema, "installations"))
    )


def _restore_lake(folder: Path, lake: LakePath, former: str, slug: str) -> int:
    files = sorted(folder.glob(f"*/tenant={former}/*/*.parquet"))
    for file in files:
        table, _, part, name = file.relative_to(folder).parts
        with replacing(lake / table / f"tenant={slug}" / part / name) as unfinished:
            shutil.copyfile(file, unfinished)
    return len(files)


async def _give_up(settings: Settings, tenant: Tenant) -> None:
    def drop() -> None:
        import psycopg

        with psycopg.connect(owner_url(settings)) as connection:
            drop_tenant_schema(connection, tenant.schema)
        remove_tenant_files(settings.lake, tenant.slug)

    await asyncio.to_thread(drop)
    async with Database.owner(settings) as owner, owner.platform() as session:
        await session.execute(
            text("DELETE FROM fleetprompt.organizations WHERE id = :id"), {"id": tenant.id}
        )


async def _finish(settings: Settings, tenant: Tenant) -> None:
    async with Database.owner(settings) as owner, owner.platform() as session:
        await session.execute(
            text(
                "UPDATE fleetprompt.organizations SET state = 'active', revision = :revision"
                " WHERE id = :id"
            ),
            {"id": tenant.id, "revision": head("tenant")},
        )
