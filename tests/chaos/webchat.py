"""``python -m tests.chaos.webchat``: a chat in a storm, and what is left of it.

Visitors write while answers are lost, streams are cut, tabs are closed and the server is killed. At the end
each message that was acknowledged must be stored once, in the order it was written, be told by one
signal, and have been seen once by its visitor's page and by the operator. Exit code 1 otherwise.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import httpx
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.api.webchat.test_events import GENEROUS
from tests.api.webchat.widget import make_site
from tests.chaos.ground import platform
from tests.chaos.kills import ApiProcess
from tests.chaos.webchat_visits import Operator, Visitor

_SETTLED = 60.0  # seconds after the last message within which everybody must have seen everything


@dataclass
class Outcome:
    """What happened, and what should not have."""

    visitors: int = 0
    acknowledged: int = 0
    repeated: int = 0
    kills: int = 0
    streams: int = 0
    closed_tabs: int = 0
    operator_streams: int = 0
    differences: list[str] = field(default_factory=list)


async def storm(
    settings: Settings, tenant: Tenant, *, visitors: int, messages: int, kills: int, seed: int = 0
) -> Outcome:
    """Let so many visitors write so many messages each while the server is killed so often."""
    chance = random.Random(seed)
    assert settings.database_url is not None
    api = ApiProcess(settings, settings.database_url.get_secret_value())
    base = f"http://127.0.0.1:{api.port}"
    async with Database.application(settings) as database:
        site = await make_site(database, settings, tenant, limits=GENEROUS)
        link, token = await _operator(database, settings, tenant)
        limits = httpx.Limits(max_connections=None)
        api.start()
        try:
            async with (
                httpx.AsyncClient(base_url=base, timeout=30, limits=limits) as client,
                httpx.AsyncClient(base_url=base, timeout=30) as at_desk,
            ):
                people = [
                    Visitor(client, site.site_key, n, random.Random(f"{seed}-{n}"))
                    for n in range(visitors)
                ]
                operator = Operator(at_desk, link, token)
                await api.ready()
                killed = await _run(api, people, operator, messages, kills, chance)
        finally:
            api.kill(signal.SIGTERM)
        differences = await _differences(database, tenant, people, operator)
    return Outcome(
        visitors=visitors,
        acknowledged=sum(len(one.sent) for one in people),
        repeated=sum(one.repeated for one in people),
        kills=killed,
        streams=sum(one.streams for one in people),
        closed_tabs=sum(one.closed_tabs for one in people),
        operator_streams=operator.streams,
        differences=differences,
    )


async def _operator(database: Database, settings: Settings, tenant: Tenant) -> tuple[str, str]:
    """A one-time link to the console and a key."""
    async with database.platform() as session:
        member = await add_member(session, tenant, email="anna@example.org", role="member")
        request = KeyRequest(kind="user", name="chaos", role="member")
        token = (await issue_key(session, settings, tenant, request))[1]
    return await Sessions(database, settings).make_link(tenant, member.user_id), token


async def _run(
    api: ApiProcess,
    people: Sequence[Visitor],
    operator: Operator,
    messages: int,
    kills: int,
    chance: random.Random,
) -> int:
    """The storm itself, until everybody has seen everything or should have; the number of kills."""
    killed = 0
    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(one.listen()) for one in people]
        reading.append(group.create_task(operator.watch()))
        writing = [group.create_task(one.visit(messages)) for one in people]
        total = len(people) * messages
        for number in range(1, kills + 1):
            # Spread over the whole, so that each kill meets visitors who write.
            while sum(len(one.sent) for one in people) < total * number // (kills + 1):
                await asyncio.sleep(0.02)
            await asyncio.sleep(chance.uniform(0, 0.2))
            api.kill()
            killed += 1
            api.start()
            await api.ready()
        await asyncio.gather(*writing)
        ends = time.monotonic() + _SETTLED
        while not _all_seen(people, operator) and time.monotonic() < ends:
            await asyncio.sleep(0.1)
        for task in reading:
            task.cancel()
    return killed


def _all_seen(people: Sequence[Visitor], operator: Operator) -> bool:
    told = sum(len(one) for one in operator.seen.values())
    return told >= sum(len(one.sent) for one in people) and all(
        len(one.seen) >= len(one.sent) for one in people
    )


async def _differences(
    database: Database, tenant: Tenant, people: Sequence[Visitor], operator: Operator
) -> list[str]:
    stored: dict[str, list[tuple[int, str]]] = {}
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(
            text(
                "SELECT conversation_id::text AS place, seq, content FROM website_chat_messages"
                " ORDER BY conversation_id, seq"
            )
        )
        for row in rows:
            stored.setdefault(row.place, []).append((row.seq, row.content))
        told = Counter(
            await session.scalars(
                text(
                    "SELECT subject_id || ' ' || (data ->> 'seq') || ' ' || (data ->> 'text')"
                    " FROM signals WHERE type = 'webchat.message.received'"
                )
            )
        )
    found: list[str] = []
    wanted = {tuple(one.sent) for one in people}
    for place, lines in stored.items():
        if [seq for seq, _ in lines] != list(range(1, len(lines) + 1)):
            found.append(f"{place}: numbered {[seq for seq, _ in lines]}")
        words = [content for _, content in lines]
        if tuple(words) not in wanted:
            found.append(f"{place}: holds {words}")
        if operator.seen.get(place) != words:
            found.append(f"{place}: the operator saw {operator.seen.get(place)}")
        found += [
            f"{place}: {told[f'{place} {seq} {content}']} signals of {content}"
            for seq, content in lines
            if told[f"{place} {seq} {content}"] != 1
        ]
    if len(stored) != len(people) or told.total() != sum(len(one.sent) for one in people):
        found.append(f"{len(stored)} conversations and {told.total()} signals")
    found += [
        f"{one.number}: the page saw {list(one.seen.values())}"
        for one in people
        if list(one.seen.values()) != one.sent
    ]
    return found


def main() -> None:
    """Read the arguments, run, print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.webchat", description=__doc__)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()
    with platform() as (settings, _):
        outcome = asyncio.run(_on_new_ground(settings, arguments))
    found = {**asdict(outcome), "differences": outcome.differences[:20]}
    print(json.dumps({**found, "seconds": round(time.monotonic() - begun)}))
    sys.exit(1 if outcome.differences else 0)


async def _on_new_ground(settings: Settings, arguments: argparse.Namespace) -> Outcome:
    tenant = await create_tenant(settings, slug="chaos", name="Chaos")
    return await storm(
        settings,
        tenant,
        visitors=arguments.visitors,
        messages=arguments.messages,
        kills=arguments.kills,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
