"""Messages are stored once, in order, with their signal, whatever is repeated."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import httpx
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatSite
from tests.api.support import problem_id
from tests.api.webchat.widget import Widget, make_site


async def signals_of(database: Database, tenant: Tenant, kind: str) -> list[dict[str, object]]:
    """Data and dedupe key of the tenant's signals of a type, in order."""
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(
            text("SELECT data, dedupe_key FROM signals WHERE type = :kind ORDER BY id"),
            {"kind": kind},
        )
        return [{**row.data, "dedupe_key": row.dedupe_key} for row in rows]


async def test_a_message_is_stored_with_its_signal_and_read_back(
    widget: Widget, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    await widget.begin(page_url="https://shop.example/cart?secret=1#x", language="de")
    client_id = str(uuid4())
    answer = await widget.say("Do you ship to Iceland?", client_id)
    assert answer.status_code == 201
    message = answer.json()["message"]
    assert (message["seq"], message["role"], message["author"]) == (1, "visitor", None)
    assert message["text"] == "Do you ship to Iceland?"
    assert message["at"].endswith("Z")
    assert answer.json()["duplicate"] is False
    assert await widget.texts() == ["Do you ship to Iceland?"]
    (told,) = await signals_of(database, tenant, "webchat.message.received")
    assert told["dedupe_key"] == (
        f"webchat_msg:{tenant.slug}:{site.id}:{widget.conversation}:{client_id}"
    )
    assert (told["text"], told["seq"]) == ("Do you ship to Iceland?", 1)
    (started,) = await signals_of(database, tenant, "webchat.session.started")
    assert started["page_url"] == "https://shop.example/cart"


async def test_t1_a_lost_answer_and_repeats_at_once_store_one_message(
    widget: Widget, database: Database, tenant: Tenant
) -> None:
    await widget.begin()
    client_id = str(uuid4())
    answers = await asyncio.gather(*(widget.say("once", client_id) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["message"]["id"] for answer in answers}) == 1
    assert [answer.json()["duplicate"] for answer in answers].count(False) == 1
    assert await widget.texts() == ["once"]
    assert len(await signals_of(database, tenant, "webchat.message.received")) == 1


async def test_t1_a_repeat_is_found_although_the_conversation_has_ended_since(
    widget: Widget,
) -> None:
    await widget.begin()
    client_id = str(uuid4())
    await widget.say("last words", client_id)
    ended = await widget.post("end", {"conversation_id": widget.conversation})
    assert ended.json()["conversation"]["status"] == "closed"
    again = await widget.say("last words", client_id)
    assert again.status_code == 200
    assert again.json()["duplicate"] is True
    assert problem_id(await widget.say("more"), 409) == "conversation-closed"


async def test_t2_equal_texts_are_two_messages(widget: Widget) -> None:
    await widget.begin()
    first, second = await asyncio.gather(widget.say("ok"), widget.say("ok"))
    assert {first.status_code, second.status_code} == {201}
    assert await widget.texts() == ["ok", "ok"]


async def test_t3_the_same_id_with_another_text_is_refused_and_changes_nothing(
    widget: Widget,
) -> None:
    await widget.begin()
    client_id = str(uuid4())
    await widget.say("first", client_id)
    assert problem_id(await widget.say("second", client_id), 409) == "message-mismatch"
    assert await widget.texts() == ["first"]


async def test_t4_the_same_id_elsewhere_is_another_message(
    new_widget: Callable[[], Widget],
    client: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    tenant: Tenant,
) -> None:
    other_site = await make_site(database, settings, tenant)
    client_id = str(uuid4())
    for number, one in enumerate((new_widget(), new_widget(), Widget(client, other_site.site_key))):
        await one.begin()
        answer = await one.say(f"text {number}", client_id)
        assert answer.status_code == 201
        assert await one.texts() == [f"text {number}"]


async def test_t7_concurrent_messages_are_numbered_without_gaps(
    widget: Widget, database: Database, tenant: Tenant
) -> None:
    await widget.begin()
    answers = await asyncio.gather(*(widget.say(f"m{i}") for i in range(15)))
    numbered = {a.json()["message"]["seq"]: a.json()["message"]["text"] for a in answers}
    assert sorted(numbered) == [*range(1, 16)]
    assert await widget.texts() == [numbered[seq] for seq in range(1, 16)]
    told = await signals_of(database, tenant, "webchat.message.received")
    assert sorted(str(one["text"]) for one in told) == sorted(numbered.values())


async def test_another_visitors_conversation_is_missing_like_one_that_never_was(
    widget: Widget, new_widget: Callable[[], Widget]
) -> None:
    await widget.begin()
    await widget.say("mine")
    stranger = new_widget()
    await stranger.begin()
    for conversation in (widget.conversation, str(uuid4())):
        stranger.conversation = conversation
        of = {"conversation_id": conversation}
        answers = [
            await stranger.say("hello"),
            await stranger.get("messages", **of),
            await stranger.get("events", **of),
            await stranger.post("end", of),
            await stranger.post("typing", of),
            await stranger.post("contact", {**of, "name": "Eve"}),
            await stranger.post("rating", {**of, "rating": 1}),
        ]
        assert {problem_id(answer, 404) for answer in answers} == {"not-found"}
    assert await widget.texts() == ["mine"]


async def test_t44_no_text_breaks_it(widget: Widget) -> None:
    await widget.begin()
    kept = {
        "a\x00b": "ab",
        "tab\tand\r\nline\rend": "tab\tand\nline\nend",
        "e\u0301": "é",
        "\u202eright to left": "\u202eright to left",
        "<script>alert(1)</script>": "<script>alert(1)</script>",
        "😀" * 4000: "😀" * 4000,
        "'; DROP TABLE website_chat_messages; --": "'; DROP TABLE website_chat_messages; --",
        "{{7*7}} %s %(x)s $1 \\u0000": "{{7*7}} %s %(x)s $1 \\u0000",
    }
    for given, stored in kept.items():
        answer = await widget.say(given)
        assert answer.status_code == 201, answer.text
        assert answer.json()["message"]["text"] == stored
    for bad in ("", " \n\t ", "\x00\x01", "x" * 4001):
        assert problem_id(await widget.say(bad), 422) == "invalid"
    headers = {**widget.sent_headers(), "Content-Type": "application/json"}
    url = "/api/webchat/v1/messages"
    for raw, status, problem in (
        (b'{"text": "\\ud800"}', 400, "malformed"),
        (b"[" * 10_000, 400, "malformed"),
        (b"\xff", 400, "malformed"),
        (b"[]", 422, "invalid"),
        (b"x" * 20_481, 413, "too-large"),
    ):
        answer = await widget.client.post(url, content=raw, headers=headers)
        assert problem_id(answer, status) == problem
        assert answer.headers["access-control-allow-origin"] == widget.origin


async def test_t48_what_looks_like_a_secret_is_stored_for_people_and_masked_in_signals(
    widget: Widget, database: Database, tenant: Tenant
) -> None:
    await widget.begin()
    pasted = "my header is Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789"
    assert (await widget.say(pasted)).status_code == 201
    assert await widget.texts() == [pasted]
    (told,) = await signals_of(database, tenant, "webchat.message.received")
    assert "abcdefghij" not in str(told)


async def test_t50_the_clients_clock_counts_for_nothing(widget: Widget) -> None:
    await widget.begin()
    body = {"conversation_id": widget.conversation, "at": "2099-01-01T00:00:00Z"}
    for text_ in ("first", "second"):
        sent = {**body, "client_message_id": str(uuid4()), "text": text_}
        answer = await widget.post("messages", sent)
        assert not answer.json()["message"]["at"].startswith("2099")
    assert await widget.texts() == ["first", "second"]


async def test_history_comes_in_pages_and_from_where_it_is_asked(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    generous = {"messages_per_conversation_minute": 999, "messages_per_visitor_minute": 999}
    limits = {**generous, "free_messages_per_address_minute": 999}
    site = await make_site(database, settings, tenant, limits=limits)
    widget = Widget(client, site.site_key)
    await widget.begin()
    for number in range(205):
        assert (await widget.say(f"m{number}")).status_code == 201
    assert await widget.texts() == [f"m{number}" for number in range(205)]
    tail = await widget.get("messages", conversation_id=widget.conversation, after=203)
    assert [m["seq"] for m in tail.json()["messages"]] == [204, 205]
    assert tail.json()["more"] is False
