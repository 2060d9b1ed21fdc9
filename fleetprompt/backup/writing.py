"""Writing a tenant's backup: one snapshot of its rows, then its lake files."""

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import AsyncConnection, IsolationLevel, sql

from fleetprompt.backup.archive import Manifest, Table, hash_of, members_of, pack
from fleetprompt.backup.catalogue import Rows, platform_rows, tenant_rows
from fleetprompt.db.urls import owner_url
from fleetprompt.errors import ConflictError, NotFoundError
from fleetprompt.lake.layout import tenant_files
from fleetprompt.lake.places import LakePath
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import load_master_key

_TENANT = (
    "SELECT id::text, name, schema_name, revision FROM fleetprompt.organizations"
    " WHERE slug = %s AND state = 'active'"
)


async def back_up(settings: Settings, slug: str, target: Path) -> Manifest:
    """Write the tenant into one file, while everything goes on; what it holds.

    The rows are those of one instant. The lake's files are copied after it, so that whatever retention
    moves out of PostgreSQL meanwhile is in the rows, in the files, or in both. Credentials stay sealed;
    their data keys are added, wrapped under the master key. NotFoundError without such a tenant.
    """
    # Beside the target, where there is room for it if there is room for the backup.
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as name:
        folder = Path(name)
        await asyncio.to_thread(_make_folders, folder)
        async with await AsyncConnection.connect(owner_url(settings)) as connection:
            await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            found = await (await connection.execute(_TENANT, (slug,))).fetchone()
            if found is None:
                raise NotFoundError(f"There is no tenant {slug!r}.")
            id_, display_name, schema, revision = found
            await _may_read(connection, schema)
            tables = [
                await _copy(connection, rows, folder / "tables")
                for rows in await tenant_rows(connection, schema)
            ]
            platform = [
                await _copy(connection, rows, folder / "platform")
                for rows in await platform_rows(connection, schema, id_)
            ]
            await _copy(connection, _data_keys(id_), folder / "keys")
        files = await asyncio.to_thread(_copy_lake, settings.lake, slug, folder / "lake")
        hashes = await asyncio.to_thread(
            lambda: {name: hash_of(folder / name) for name in members_of(folder)}
        )
        manifest = Manifest(
            slug=slug,
            name=display_name,
            tenant_id=id_,
            revision=revision,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            master_key_id=load_master_key(settings).key_id,
            tables=tuple(tables),
            platform_tables=tuple(platform),
            lake_files=files,
            hashes=hashes,
        )
        await asyncio.to_thread(pack, folder, manifest, target)
    return manifest


def _data_keys(organization: str) -> Rows:
    columns = ("id", "master_key_id", "nonce", "wrapped")
    query = sql.SQL(
        "SELECT id, master_key_id, nonce, wrapped FROM fleetprompt.data_keys WHERE organization_id = {}"
    ).format(sql.Literal(organization))
    return Rows("data_keys", columns, query)


async def _may_read(connection: AsyncConnection, schema: str) -> None:
    """Row-level security must not hide rows of the index tables from the one who copies them."""
    try:
        await connection.execute("SET LOCAL row_security = off")
        await connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, "signal_keys"))
        )
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConflictError(
            "The owner's login may not read this tenant's tables; use the one that made them."
        ) from error


async def _copy(connection: AsyncConnection, rows: Rows, folder: Path) -> Table:
    with (folder / rows.name).open("wb") as file:
        async with connection.cursor() as cursor:
            async with cursor.copy(sql.SQL("COPY ({}) TO STDOUT").format(rows.query)) as copy:
                async for data in copy:
                    file.write(data)
            return Table(rows.name, rows.columns, cursor.rowcount)


def _make_folders(folder: Path) -> None:
    for part in ("tables", "platform", "keys"):
        (folder / part).mkdir()


def _copy_lake(lake: LakePath, slug: str, folder: Path) -> int:
    """Copy the tenant's files until there is none that was not seen: days become months meanwhile."""
    seen: set[LakePath] = set()
    copied = 0
    while unseen := [file for file in tenant_files(lake, slug) if file not in seen]:
        for file in unseen:
            seen.add(file)
            target = folder / str(file).removeprefix(f"{lake}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with file.open("rb") as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            except FileNotFoundError:
                # Retention took it away just now, or its month's file has what it had.
                continue
            copied += 1
    return copied
