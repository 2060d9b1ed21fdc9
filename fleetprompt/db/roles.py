"""Roles and schemas: who may touch what. Run by the owner.

``fleetprompt_app`` is the application's login: it reads the platform's tables, inherits nothing and
has no right on any tenant's schema. ``fleetprompt_tenant`` is the group of all tenants' roles and may
use the index tables, each its own rows. A tenant's role has the name of its schema, owns nothing
and may use that schema alone; the application may take it on for one transaction.

Roles belong to the whole server, so one PostgreSQL server serves one FleetPrompt installation.
"""

from collections.abc import Sequence

from psycopg import Connection, sql

from fleetprompt.db.base import PLATFORM_SCHEMA
from fleetprompt.db.urls import APPLICATION_ROLE

TENANT_GROUP = "fleetprompt_tenant"
# Rows of all tenants, by their schemas' names.
INDEX_TABLES = (
    *("stale_partitions", "directive_queue", "schedule_slots", "approvals_waiting"),
    "webchat_site_keys",
)
# A process that stands still in the middle of a transaction must not hold its rows, which others pass
# over, for longer than a lease.
_IDLE_TIMEOUT = "30s"
_LOCK = 0x466C6565  # "Flee": one migration or provisioning of roles at a time


def ensure_roles(connection: Connection, application_password: str) -> None:
    """Create the platform's roles and schema, or bring them up to date."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    for name, options in (
        (APPLICATION_ROLE, "LOGIN NOINHERIT NOCREATEDB NOCREATEROLE"),
        (TENANT_GROUP, "NOLOGIN"),
    ):
        if not _exists(connection, name):
            connection.execute(sql.SQL("CREATE ROLE {} " + options).format(sql.Identifier(name)))
    connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(APPLICATION_ROLE), sql.Literal(application_password)
        )
    )
    connection.execute(
        sql.SQL("ALTER ROLE {} SET idle_in_transaction_session_timeout = {}").format(
            sql.Identifier(APPLICATION_ROLE), sql.Literal(_IDLE_TIMEOUT)
        )
    )
    connection.execute(
        sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(PLATFORM_SCHEMA))
    )
    # A temporary table outlives its transaction on a pooled connection, and others would meet it.
    connection.execute(
        sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(
            sql.Identifier(connection.info.dbname)
        )
    )


def create_tenant_schema(connection: Connection, schema: str) -> None:
    """Create a tenant's role and its empty schema with the grants that later tables inherit.

    The schema's name is the role's. Repeating it changes nothing.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    name = sql.Identifier(schema)
    group, application = sql.Identifier(TENANT_GROUP), sql.Identifier(APPLICATION_ROLE)
    if not _exists(connection, schema):
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN IN ROLE {}").format(name, group))
        connection.execute(sql.SQL("GRANT {} TO {}").format(name, application))
    for statement in (
        "CREATE SCHEMA IF NOT EXISTS {}",
        "REVOKE ALL ON SCHEMA {} FROM PUBLIC",
        "GRANT USAGE ON SCHEMA {} TO {}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT USAGE, SELECT ON SEQUENCES TO {}",
    ):
        connection.execute(sql.SQL(statement).format(name, name))


def reader_of(schema: str) -> str:
    """The login that reads a tenant's tables; no schema has such a name, slugs hold no underscore."""
    return f"{schema}_reader"


def create_reader(
    connection: Connection, schema: str, password: str, tables: Sequence[str]
) -> None:
    """Let a login of its own read these tables of one tenant, or give it another password.

    Read-only by its rights and by its session; it sees no other schema.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    role, name = sql.Identifier(reader_of(schema)), sql.Identifier(schema)
    if not _exists(connection, reader_of(schema)):
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOINHERIT CONNECTION LIMIT 10").format(role)
        )
    for statement in (
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password)),
        sql.SQL("ALTER ROLE {} SET search_path = {}").format(role, name),
        sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(role),
        sql.SQL("ALTER ROLE {} SET statement_timeout = '5min'").format(role),
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(name, role),
        sql.SQL("GRANT SELECT ON {} TO {}").format(
            sql.SQL(", ").join(sql.Identifier(schema, table) for table in tables), role
        ),
    ):
        connection.execute(statement)


def drop_reader(connection: Connection, schema: str) -> bool:
    """Take the tenant's reading login away; False if it has none. Open connections end."""
    reader = reader_of(schema)
    if not _exists(connection, reader):
        return False
    role = sql.Identifier(reader)
    connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
    connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (reader,)
    )
    connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
    connection.execute(sql.SQL("DROP ROLE {}").format(role))
    return True


def drop_tenant_schema(connection: Connection, schema: str) -> None:
    """Remove a tenant's schema with everything in it, its rows in the index tables, and its role."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    name = sql.Identifier(schema)
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
    for table in INDEX_TABLES:
        connection.execute(
            sql.SQL("DELETE FROM {}.{} WHERE tenant_schema = %s").format(
                sql.Identifier(PLATFORM_SCHEMA), sql.Identifier(table)
            ),
            (schema,),
        )
    drop_reader(connection, schema)
    if _exists(connection, schema):
        # An owner that is no superuser may drop for a role only as its member.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


def _exists(connection: Connection, role: str) -> bool:
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    return found.fetchone() is not None
