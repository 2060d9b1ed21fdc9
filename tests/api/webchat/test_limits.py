"""Limits are exact, refuse nobody's text for good, and do not shut an office out."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import httpx
from fastapi import FastAPI

from fleetprompt.clock import Clock
from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.support import calling, problem_id
from tests.api.webchat.test_access import platform_of
from tests.api.webchat.widget import ORIGIN, Widget, later, make_site, solve


async def limited(
    client: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    **limits: int,
) -> Widget:
    """A widget on a site with these limits."""
    site = await make_site(database, settings, tenant, limits=limits)
    return Widget(client, site.site_key)


async def test_t41_of_many_at_once_exactly_the_limit_is_accepted(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    first = await limited(client, database, settings, tenant, messages_per_site_minute=20)
    # In the middle of a minute, so that no window ends while they come.
    platform_of(app).clock = _mid_minute()
    widgets = [Widget(client, first.site_key) for _ in range(5)]
    for widget in widgets:
        await widget.begin()
    answers = await asyncio.gather(*(widget.say(f"m{i}") for widget in widgets for i in range(10)))
    accepted = [answer for answer in answers if answer.status_code == 201]
    assert len(accepted) == 20
    for answer in answers:
        if answer.status_code != 201:
            assert problem_id(answer, 429) == "rate-limited"
            assert answer.json()["scope"] == "site"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    stored = [len(await widget.texts()) for widget in widgets]
    assert sum(stored) == 20


async def test_t43_what_a_limit_refused_is_stored_once_when_it_comes_again(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    widget = await limited(client, database, settings, tenant, messages_per_conversation_minute=2)
    await widget.begin()
    platform_of(app).clock = _mid_minute()
    ids = [str(uuid4()) for _ in range(3)]
    answers = [await widget.say(f"m{i}", one) for i, one in enumerate(ids)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[2].json()["scope"] == "conversation"
    # What is stored is answered although the limit is reached.
    assert (await widget.say("m0", ids[0])).status_code == 200
    platform_of(app).clock = _mid_minute(60)
    assert [(await widget.say("m2", ids[2])).status_code for _ in range(2)] == [201, 200]
    assert await widget.texts() == ["m0", "m1", "m2"]


async def test_a_noisy_visitor_takes_nothing_of_what_the_others_have(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    noisy = await limited(
        client,
        database,
        settings,
        tenant,
        messages_per_visitor_minute=3,
        messages_per_site_minute=6,
    )
    quiet = Widget(client, noisy.site_key)
    await noisy.begin()
    await quiet.begin()
    platform_of(app).clock = _mid_minute()
    answers = [await noisy.say(f"spam {i}") for i in range(20)]
    assert [a.status_code for a in answers].count(201) == 3
    assert {a.json()["scope"] for a in answers if a.status_code == 429} == {"visitor"}
    assert [(await quiet.say(f"hello {i}")).status_code for i in range(3)] == [201, 201, 201]


async def test_a_contact_that_comes_with_a_session_counts_like_any_other_change(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    widget = await limited(client, database, settings, tenant, changes_per_visitor_minute=3)
    platform_of(app).clock = _mid_minute()
    await widget.begin(contact={"name": "0"})
    answers = [await widget.post("sessions", {"contact": {"name": str(i)}}) for i in range(1, 5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].json()["scope"] == "visitor"
    # Without any, it is no change.
    assert (await widget.begin())["contact"]["name"] == "3"


async def test_t42_an_office_behind_one_address_is_not_shut_out(
    new_widget: Callable[[], Widget],
) -> None:
    """30 visitors of one network send 3 messages each; the widget does what work is asked."""
    widgets = [new_widget() for _ in range(30)]
    for widget in widgets:
        await widget.begin()
    for widget in widgets:
        for number in range(3):
            answer = await widget.say(f"m{number}")
            if answer.status_code == 403:
                proof = solve(answer.json()["challenge"])
                answer = await widget.say(f"m{number}", **{"Webchat-Challenge": proof})
            assert answer.status_code == 201, answer.text


async def test_work_is_asked_beyond_the_free_sessions_and_counts_once(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    first = await limited(client, database, settings, tenant, free_sessions_per_address_hour=1)
    await first.bootstrap()
    assert (await first.post("sessions")).status_code == 201
    second, third = Widget(client, first.site_key), Widget(client, first.site_key)
    await second.bootstrap()
    await third.bootstrap()
    refused = await second.post("sessions")
    assert problem_id(refused, 403) == "challenge-required"
    challenge = refused.json()["challenge"]
    assert challenge["kind"] == "work"
    assert 12 <= challenge["bits"] <= 18
    assert len(challenge["nonce"]) <= 200
    answer = solve(challenge)
    lazy = f"{challenge['nonce']}:x"
    assert problem_id(await second.post("sessions", None, **{"Webchat-Challenge": lazy}), 403) == (
        "challenge-required"
    )
    # Somebody else's work counts for nothing.
    stolen = await third.post("sessions", None, **{"Webchat-Challenge": answer})
    assert problem_id(stolen, 403) == "challenge-required"
    done = await second.post("sessions", None, **{"Webchat-Challenge": answer})
    assert done.status_code == 201
    # A conversation that is open needs no more work; a new one does, and the old answer is used up.
    assert (await second.post("sessions")).status_code == 200
    conversation = done.json()["conversation"]["id"]
    await second.post("end", {"conversation_id": conversation})
    again = await second.post("sessions", None, **{"Webchat-Challenge": answer})
    assert problem_id(again, 403) == "challenge-required"


async def test_trap_16_pages_over_plain_http_are_asked_for_no_work_but_limited_to_what_is_free(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    limits = {"free_sessions_per_address_hour": 1, "free_messages_per_address_minute": 0}
    site = await make_site(
        database, settings, tenant, origins=("http://shop.example", ORIGIN), limits=limits
    )
    plain, second = [Widget(client, site.site_key, "http://shop.example") for _ in range(2)]
    await plain.begin()
    await second.bootstrap()
    for refused, seconds in (
        (await second.post("sessions"), 3600),
        (await plain.say("hello"), 60),
    ):
        assert problem_id(refused, 429) == "rate-limited"
        assert refused.json()["scope"] == "address"
        assert 1 <= int(refused.headers["Retry-After"]) <= seconds
    secure = Widget(client, site.site_key)
    await secure.bootstrap()
    assert problem_id(await secure.post("sessions"), 403) == "challenge-required"


async def test_t40_a_forged_forwarding_header_changes_no_bucket(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    first = await limited(client, database, settings, tenant, bootstraps_per_address_minute=3)
    platform_of(app).clock = _mid_minute()
    answers = []
    for number in range(5):
        widget = Widget(client, first.site_key)
        widget.headers = {
            "X-Forwarded-For": f"203.0.{number}.1",
            "Forwarded": f"for=9.9.{number}.9",
        }
        answers.append(await widget.post("bootstrap"))
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    assert answers[-1].json()["scope"] == "address"
    transport = httpx.ASGITransport(app=app, client=("198.51.100.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as elsewhere:
        assert (await Widget(elsewhere, first.site_key).post("bootstrap")).status_code == 200


async def test_one_tenants_flood_takes_nothing_of_anothers(
    app: FastAPI, client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    flooded = await limited(client, database, settings, tenant, bootstraps_per_address_minute=1)
    other = await limited(client, database, settings, tenant, bootstraps_per_address_minute=1)
    platform_of(app).clock = _mid_minute()
    async with calling(app) as again:
        codes = [
            (await Widget(again, flooded.site_key).post("bootstrap")).status_code for _ in range(4)
        ]
    assert codes == [200, 429, 429, 429]
    assert (await other.post("bootstrap")).status_code == 200


def _mid_minute(ahead: float = 0) -> Clock:
    """A clock that stands in the middle of a minute and moves no further."""
    start = later(ahead)()
    still = start.replace(second=30, microsecond=0)
    return lambda: still
