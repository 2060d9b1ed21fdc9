"""A tenant's budget of a UTC day: taken at its most before a call, and corrected after it.

A call whose process dies stays counted at its most: it may have been carried out.
"""

from datetime import date

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.llm.endpoint import Endpoint
from fleetprompt.llm.outcome import Usage
from fleetprompt.tenants.service import Tenant

# One statement: whoever waits for the row's lock judges by what stands there then.
_TAKE = text(
    """
    INSERT INTO llm_days AS d (day, calls, tokens, micro_dollars)
    SELECT :day, 1, :tokens, :micro_dollars
    WHERE :tokens <= :most_tokens AND :micro_dollars <= :most_micro_dollars
    ON CONFLICT (day) DO UPDATE SET
        calls = d.calls + 1,
        tokens = d.tokens + excluded.tokens,
        micro_dollars = d.micro_dollars + excluded.micro_dollars
    WHERE d.tokens + excluded.tokens <= :most_tokens
      AND d.micro_dollars + excluded.micro_dollars <= :most_micro_dollars
    RETURNING calls
    """
)
_CORRECT = text(
    """
    UPDATE llm_days SET tokens = tokens + :tokens, micro_dollars = micro_dollars + :micro_dollars
    WHERE day = :day
    """
)


async def take(
    database: Database, tenant: Tenant, endpoint: Endpoint, day: date, most: Usage
) -> bool:
    """Count a call at the most it can use; false, with nothing counted, where the day has no room."""
    async with database.tenant(tenant.schema) as session:
        taken = await session.scalar(
            _TAKE,
            {
                "day": day,
                "tokens": _tokens(most),
                "micro_dollars": most.micro_dollars,
                "most_tokens": endpoint.daily_tokens,
                "most_micro_dollars": endpoint.daily_micro_dollars,
            },
        )
    return taken is not None


async def correct(database: Database, tenant: Tenant, day: date, most: Usage, used: Usage) -> None:
    """Put what a call used in the place of the most that was taken for it."""
    if used == most:
        return
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            _CORRECT,
            {
                "day": day,
                "tokens": _tokens(used) - _tokens(most),
                "micro_dollars": used.micro_dollars - most.micro_dollars,
            },
        )


def _tokens(usage: Usage) -> int:
    return usage.tokens_in + usage.tokens_out
