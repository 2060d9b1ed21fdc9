"""What PostgreSQL refuses of the signals themselves, told from a server that is away."""

from collections.abc import Sequence
from typing import Any

import psycopg

from fleetprompt.db.engine import ENTER_TENANT, tenant_path
from fleetprompt.errors import DatabaseUnavailableError, FleetPromptError, InvalidError
from fleetprompt.signals.envelope import Accepted
from fleetprompt.signals.statements import STORE

# What PostgreSQL says of one row; everything else is about the server or the connection. The last
# two are of SQLSTATE class 54, such as an entry that is too long for an index.
REFUSALS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)
# A role, schema or table that is not there (any more). The role is a setting's value: 22023.
_NO_SUCH_TENANT = (
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
)


async def explain(
    connection: psycopg.AsyncConnection[Any],
    schema: str,
    items: Sequence[Accepted],
    refusal: psycopg.Error,
) -> FleetPromptError:
    """Which of a tenant's signals PostgreSQL refused, found by trying each and keeping none.

    PostgreSQL's own message may quote content, so it is not passed on.
    """
    if isinstance(refusal, _NO_SUCH_TENANT):
        return DatabaseUnavailableError(
            "This tenant's tables are not there; it may be in the middle of a migration or being "
            "deleted.",
            retry_after=5,
        )
    for item in items:
        try:
            async with connection.transaction(force_rollback=True):
                await connection.execute(
                    ENTER_TENANT, {"schema": schema, "path": tenant_path(schema)}
                )
                await connection.execute(STORE, (f"[{item.encoded.decode()}]",))
        except REFUSALS as refused:
            return InvalidError(
                "PostgreSQL cannot store this signal.",
                errors=[{"pointer": item.pointer, "detail": f"SQLSTATE {refused.sqlstate}"}],
            )
    return InvalidError(f"PostgreSQL cannot store this (SQLSTATE {refusal.sqlstate}).")
