"""Looking for secrets in signals that are stored already."""

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.secrets import find, may_hold_secret
from fleetprompt.tenants.service import Tenant

_STORED_SINCE = text(
    "SELECT id::text, type, data::text, metadata::text FROM signals"
    " WHERE inserted_at > :since ORDER BY id DESC LIMIT :most"
)
_FETCH_ROWS = 512


@dataclass(frozen=True, slots=True)
class SecretFound:
    """A signal in which something looks like a secret: where, and its shape; never what it is."""

    tenant: str
    signal_id: str
    type: str
    pointer: str
    shape: str


async def secrets_since(
    database: Database, tenant: Tenant, since: datetime, most: int
) -> tuple[int, list[SecretFound]]:
    """How many of the tenant's signals stored since were looked at, the newest ``most``, and what was found.

    By the same shapes as at ingest, which refuses them: these came another way, or a shape is newer.
    """
    looked_at, found = 0, []
    async with database.tenant(tenant.schema) as session:
        rows = await session.stream(
            _STORED_SINCE.execution_options(stream_results=True, max_row_buffer=_FETCH_ROWS),
            {"since": since, "most": most},
        )
        async for id_, type_, *parts in rows:
            looked_at += 1
            for name, raw in zip(("data", "metadata"), parts, strict=True):
                if may_hold_secret(raw.encode()):
                    found += [
                        SecretFound(tenant.slug, id_, type_, pointer, shape)
                        for pointer, shape in find(json.loads(raw), f"/{name}")
                    ]
    return looked_at, found
