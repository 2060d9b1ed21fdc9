"""How large tables are, for people who plan disks."""

from dataclasses import dataclass

from sqlalchemy import text

from fleetprompt.db.engine import Database

# Of the catalogue, which every login may read; tables of all tenants with one name are summed up.
_SIZES = text(
    """
    SELECT CASE WHEN n.nspname = 'fleetprompt' THEN 'platform' ELSE 'tenants' END AS kept_in,
           c.relname AS name, count(*) AS tables,
           sum(greatest(c.reltuples, 0))::bigint AS rows,
           sum(pg_total_relation_size(c.oid))::bigint AS bytes
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND (n.nspname = 'fleetprompt' OR n.nspname LIKE 'org\\_%')
    GROUP BY 1, 2 ORDER BY bytes DESC, name
    """
)


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table of the platform, or of all tenants together; rows as PostgreSQL last estimated them."""

    kept_in: str
    name: str
    tables: int
    rows: int
    bytes: int


async def table_sizes(database: Database) -> list[TableSize]:
    """Every table with its indexes, the largest first."""
    async with database.platform() as session:
        return [TableSize(*row) for row in await session.execute(_SIZES)]
