"""Logins for BI tools: one a tenant, which reads that tenant's tables in PostgreSQL and nothing else."""

import asyncio
import secrets
from dataclasses import dataclass, field

import psycopg
from sqlalchemy.engine import make_url

from fleetprompt.db.engine import Database
from fleetprompt.db.roles import create_reader, drop_reader, reader_of
from fleetprompt.db.urls import libpq_url, owner_url
from fleetprompt.errors import NotFoundError
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import get_tenant

# What analysts may read. Not what is sealed or secret, nor what only the machinery needs.
READABLE = (
    *("signals", "directives", "directive_transitions", "executions", "execution_logs"),
    *("installations", "outbound_messages", "approvals", "approval_decisions", "connectors"),
    *("website_chat_sites", "website_chat_conversations", "website_chat_messages"),
    *("replays", "lake_days", "llm_days"),
)


@dataclass(frozen=True, slots=True)
class Reader:
    """A login, shown once: PostgreSQL keeps a hash of the password alone."""

    role: str
    url: str = field(repr=False)


async def grant_reader(settings: Settings, slug: str) -> Reader:
    """Make the tenant's reading login, or give it another password; NotFoundError without a tenant."""
    schema = await _schema(settings, slug)
    password = secrets.token_urlsafe(24)

    def grant() -> None:
        with psycopg.connect(owner_url(settings)) as connection:
            create_reader(connection, schema, password, READABLE)

    await asyncio.to_thread(grant)
    role = reader_of(schema)
    url = make_url(owner_url(settings)).set(username=role, password=password)
    return Reader(role, libpq_url(url))


async def revoke_reader(settings: Settings, slug: str) -> None:
    """Take the login away and end its connections; NotFoundError if there is none."""
    schema = await _schema(settings, slug)

    def revoke() -> bool:
        with psycopg.connect(owner_url(settings)) as connection:
            return drop_reader(connection, schema)

    if not await asyncio.to_thread(revoke):
        raise NotFoundError(f"{slug} has no login for analysts.")


async def _schema(settings: Settings, slug: str) -> str:
    async with Database.owner(settings) as owner, owner.platform() as session:
        return (await get_tenant(session, slug)).schema
