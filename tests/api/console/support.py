"""People at the console, and a tenant with something on every page."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.types import find_type
from fleetprompt.executions import service as executions
from fleetprompt.ids import new_id
from fleetprompt.packages import service as packages
from fleetprompt.sessions.service import Sessions
from fleetprompt.tenants.keys import Role, make_token
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.messages import add_message
from fleetprompt.webchat.models import ChatConversation, ChatMessage, ChatSite
from fleetprompt.webchat.telling import message_data, tell
from tests.api.support import DIGEST, Keys

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
WHO_ASKED = "agent:triage"


@dataclass(frozen=True)
class Place:
    """A tenant's approval that waits, its directive, and one of another kind with an execution."""

    approval_id: UUID
    directive_id: UUID
    installed_id: UUID
    installation_id: UUID
    execution_id: UUID
    correlation_id: str


async def furnish(
    database: Database, tenant: Tenant, *, correlation_id: str = "ticket-4711", **terms: Any
) -> Place:
    """Put something on every page."""
    actor = Actor("user:somebody", "owner")
    async with database.tenant(tenant.schema) as session:
        kind = find_type("package.configure")
        policy = ApprovalPolicy(
            **{"roles": frozenset({"owner", "admin"}), **terms},
        )
        await change_terms(session, kind, required=True, policy=policy, by=actor)
        installed, installation = await packages.install(session, tenant, DIGEST, {}, actor)
        execution = await executions.create(
            session,
            "package.install",
            directive_id=installed.id,
            correlation_id=installed.correlation_id,
        )
        await executions.log(session, execution.id, "warning", "the schedule has no slots", slots=0)
        waiting, _ = await directives.request_directive(
            session,
            tenant,
            kind.name,
            {"installation_id": str(installation.id), "config": {"timezone": "Europe/Berlin"}},
            idempotency_key=f"configure:{correlation_id}",
            actor=actor,
            correlation_id=correlation_id,
        )
        (approval,) = await approvals.list_approvals(session, directive_id=waiting.id)
    return Place(
        approval.id, waiting.id, installed.id, installation.id, execution.id, correlation_id
    )


async def converse(
    database: Database, tenant: Tenant, *said: str, name: str | None = None, **values: Any
) -> UUID:
    """A visitor's conversation with these messages, as the chat stores it."""
    now = system_clock()
    async with database.tenant(tenant.schema) as session:
        site = await session.scalar(select(ChatSite).limit(1))
        if site is None:
            site = ChatSite(
                id=new_id(),
                site_key=make_token("pub"),
                name="Nordwind Shop",
                status="active",
                mode="native",
                origins=["https://shop.example"],
                settings={},
            )
            session.add(site)
            await session.flush()
        conversation = ChatConversation(
            id=new_id(),
            site_id=site.id,
            visitor_id=new_id(),
            status="open",
            visitor_name=name,
            waiting_since=now if said else None,
            inserted_at=now,
            **values,
        )
        session.add(conversation)
        await session.flush()
        await tell(session, "session.started", conversation, {"page_url": conversation.page_url})
        for words in said:
            await add_words(session, conversation, words, now)
    return conversation.id


async def add_words(
    session: AsyncSession, conversation: ChatConversation, words: str, now: datetime
) -> None:
    """One more message of the visitor's, and its signal."""
    message = ChatMessage(
        id=new_id(),
        conversation_id=conversation.id,
        seq=conversation.last_seq + 1,
        role="visitor",
        content=words,
        client_message_id=uuid4(),
        context={},
        inserted_at=now,
    )
    message.signal_id = await tell(
        session, "message.received", conversation, message_data(message, with_content=True)
    )
    add_message(session, conversation, message)
    await session.flush()


async def person(keys: Keys, tenant: Tenant, name: str, role: Role) -> UUID:
    """A member's id."""
    return await keys.member(tenant, f"{name}@{tenant.slug}.example.org", role)


@asynccontextmanager
async def browsing(
    app: FastAPI, *, headers: dict[str, str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody's browser, which keeps cookies and says where its requests come from."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://api.test",
        headers=SAME_ORIGIN if headers is None else headers,
    ) as client:
        yield client


@asynccontextmanager
async def at_console(
    app: FastAPI, keys: Keys, tenant: Tenant, user_id: UUID
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which this member is signed in by a one-time link."""
    link = await Sessions(keys.database, keys.settings).make_link(tenant, user_id)
    async with browsing(app) as client:
        answer = await client.post(f"/console/link/{link}")
        assert answer.status_code == 303, answer.text
        yield client


def links_of(page: str) -> list[str]:
    """Every address that a page links to, in order."""
    return [unescape(one) for one in re.findall(r'href="([^"]+)"', page)]


def hidden_field(page: str, name: str) -> str:
    """The value of a form's hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return unescape(found[1])
