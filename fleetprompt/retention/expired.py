"""The platform's own rows that are of no use any more: sessions, links, codes, keys, workers, slots."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.retention.pace import Pace

# What is deleted, by table. A key that expired or was revoked stays for a season, so that a list of keys
# still tells what it was; slots stay for a year, which is how long digests are looked back at.
_EXPIRED: Mapping[str, str] = {
    "console_sessions": "expires_at < :now",
    "sign_in_links": "expires_at < :now",
    "sign_in_failures": "window_start < CAST(:now AS timestamptz) - interval '1 hour'",
    "pairing_codes": "expires_at < :now",
    "pairing_tries": "ends_at < :now",
    "api_keys": "least(expires_at, revoked_at) < CAST(:now AS timestamptz) - interval '90 days'",
    "workers": "seen_at < CAST(:now AS timestamptz) - interval '1 day'",
    "schedule_slots": (
        "settled_at < CAST(:now AS timestamptz) - interval '400 days'"
        " AND local_date < (CAST(:now AS timestamptz) - interval '400 days')::date"
    ),
}


async def remove_expired(database: Database, now: datetime, pace: Pace) -> dict[str, int]:
    """Delete what has expired, in batches; how many rows of which table."""
    removed = {}
    for table, condition in _EXPIRED.items():
        # Both come from this module.
        statement = text(
            f"DELETE FROM fleetprompt.{table} WHERE ctid = ANY(ARRAY("  # noqa: S608
            f"SELECT ctid FROM fleetprompt.{table} WHERE {condition} LIMIT :rows FOR UPDATE SKIP LOCKED))"
        )
        removed[table] = 0
        while True:
            async with pace, database.platform() as session:
                result = await session.execute(statement, {"now": now, "rows": pace.rows})
                gone: int = result.rowcount  # type: ignore[attr-defined] # of a DELETE
            removed[table] += gone
            if gone < pace.rows:
                break
    return removed
