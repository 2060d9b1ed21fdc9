"""Visitors of a server that is killed in the middle."""

import asyncio
import random
import threading
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatSite
from tests.api.serving import serving
from tests.api.webchat.test_events import GENEROUS
from tests.api.webchat.widget import Widget, make_site


@pytest.fixture
async def busy_site(database: Database, settings: Settings, tenant: Tenant) -> ChatSite:
    """A site that takes much."""
    return await make_site(database, settings, tenant, limits=GENEROUS)


@pytest.mark.slow
async def test_t1_a_server_that_is_killed_loses_and_doubles_nothing(
    settings: Settings,
    busy_site: ChatSite,
    database: Database,
    tenant: Tenant,
    tmp_path: Path,
) -> None:
    """12 visitors with 12 messages each; two servers are killed on the way, answers are lost."""
    visitors, messages, kills = 12, 12, 2
    current: list[str] = []
    stopped = threading.Event()

    def serve() -> None:
        for number in range(kills + 1):
            folder = tmp_path / str(number)
            folder.mkdir()
            with serving(settings, folder) as server:
                current[:] = [server.url]
                if stopped.wait(2 if number < kills else 120):
                    return
                server.process.kill()
                server.process.wait(20)

    async def visit(number: int, client: httpx.AsyncClient) -> tuple[str, list[str]]:
        chance = random.Random(number)
        sent = [f"{number}-{i}" for i in range(messages)]
        widget: Widget | None = None
        for words in sent:
            client_id = str(uuid4())
            while True:
                try:
                    client.base_url = httpx.URL(current[0])
                    if widget is None:
                        widget = Widget(client, busy_site.site_key)
                        await widget.begin()
                    answer = await widget.say(words, client_id)
                except (httpx.TransportError, IndexError):
                    widget = widget if widget and widget.conversation else None
                    await asyncio.sleep(0.1)
                    continue
                # A quarter of the answers is lost on the way, and the message sent again.
                if answer.status_code in (200, 201) and chance.random() > 0.25:
                    break
            await asyncio.sleep(chance.random())
        assert widget is not None
        return widget.conversation, sent

    running = asyncio.create_task(asyncio.to_thread(serve))
    try:
        async with httpx.AsyncClient(timeout=20) as client, asyncio.timeout(100):
            visits = await asyncio.gather(*(visit(number, client) for number in range(visitors)))
    finally:
        stopped.set()
        await running
    async with database.tenant(tenant.schema) as session:
        for conversation, sent in visits:
            rows = await session.execute(
                text(
                    "SELECT content, seq FROM website_chat_messages"
                    " WHERE conversation_id = CAST(:id AS uuid) ORDER BY seq"
                ),
                {"id": conversation},
            )
            assert [(row.content, row.seq) for row in rows] == [
                (words, seq) for seq, words in enumerate(sent, 1)
            ]
            told = await session.scalars(
                text(
                    "SELECT data ->> 'text' FROM signals WHERE type = 'webchat.message.received'"
                    " AND subject_id = :id ORDER BY (data ->> 'seq')::int"
                ),
                {"id": conversation},
            )
            assert list(told) == sent
