"""What belongs to a tenant: the tables of its schema in the order of their references, and platform rows."""

from dataclasses import dataclass
from graphlib import TopologicalSorter

from psycopg import AsyncConnection, sql

# By the name of the schema: made again by restoring (marks), or due work, which only a live restore takes.
DUE_WORK = ("directive_queue", "schedule_slots", "connectors_watched", "webchat_site_keys")
_WITH_SCHEMA = (*DUE_WORK, "approvals_waiting")
# By the organization's id. Data keys stay behind: what they seal is sealed anew.
_WITH_ORGANIZATION = ("members", "retention_terms", "api_keys")
PLATFORM_TABLES = ("users", *_WITH_ORGANIZATION, *_WITH_SCHEMA)
NOT_COPIED = ("alembic_version",)

_TABLES = (
    "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = %s::regnamespace"
    " ORDER BY 1"
)
_REFERENCES = (
    "SELECT c.relname, f.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
    " JOIN pg_class f ON f.oid = k.confrelid"
    " WHERE k.contype = 'f' AND c.relnamespace = %s::regnamespace"
    " AND f.relnamespace = c.relnamespace AND f.oid <> c.oid"
)
_COLUMNS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table, and the query that selects them."""

    name: str
    columns: tuple[str, ...]
    query: sql.Composed


async def tenant_rows(connection: AsyncConnection, schema: str) -> list[Rows]:
    """Every table of the schema, each after those that it refers to."""
    quoted = sql.Identifier(schema).as_string(connection)
    tables = [row[0] for row in await (await connection.execute(_TABLES, (quoted,))).fetchall()]
    graph: dict[str, set[str]] = {name: set() for name in tables if name not in NOT_COPIED}
    for table, referred in await (await connection.execute(_REFERENCES, (quoted,))).fetchall():
        graph[table].add(referred)
    found = []
    for name in TopologicalSorter(graph).static_order():
        columns = await columns_of(connection, schema, name)
        # Transaction ids mean nothing in another server.
        columns = tuple(column for column in columns if (name, column) != ("signals", "txid"))
        found.append(Rows(name, columns, _select(schema, name, columns)))
    return found


async def platform_rows(connection: AsyncConnection, schema: str, organization: str) -> list[Rows]:
    """What of the platform's tables is this tenant's, users before members."""
    found = []
    for name in PLATFORM_TABLES:
        columns = await columns_of(connection, "fleetprompt", name)
        if name == "users":
            condition = sql.SQL(
                " WHERE id IN (SELECT user_id FROM fleetprompt.members WHERE organization_id = {})"
            ).format(sql.Literal(organization))
        elif name in _WITH_ORGANIZATION:
            condition = sql.SQL(" WHERE organization_id = {}").format(sql.Literal(organization))
        else:
            condition = sql.SQL(" WHERE tenant_schema = {}").format(sql.Literal(schema))
        found.append(Rows(name, columns, _select("fleetprompt", name, columns) + condition))
    return found


async def columns_of(connection: AsyncConnection, schema: str, table: str) -> tuple[str, ...]:
    """The table's columns that can be written."""
    place = sql.Identifier(schema, table).as_string(connection)
    return tuple(row[0] for row in await (await connection.execute(_COLUMNS, (place,))).fetchall())


def _select(schema: str, table: str, columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, table)
    )
