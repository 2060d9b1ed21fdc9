"""The stand-in that the widget's browser tests talk to answers with the members that the API has."""

import asyncio
from uuid import uuid4

from tests.api.support import problem_id
from tests.api.webchat.widget import API, Widget
from tests.doubles.webchat_api import Conversation, default_site


async def test_the_stand_in_and_the_api_have_the_same_members(widget: Widget) -> None:
    found = await widget.bootstrap()
    site = default_site()
    assert set(found) == {"token", "expires_in", "visitor", "site", "conversation"}
    assert set(found["site"]) == set(site)
    for part in ("theme", "prechat"):
        assert set(found["site"][part]) == set(site[part])
    stand_in = Conversation("id", "visitor")
    begun = await widget.begin()
    assert set(begun["conversation"]) == set(stand_in.wire())
    said = (await widget.say("hello")).json()
    assert set(said) == {"message", "duplicate"}
    assert set(said["message"]) == set(stand_in.add("visitor", "hello", None, None))
    page = (await widget.get("messages", conversation_id=widget.conversation)).json()
    assert set(page) == {"conversation", "messages", "more"}


async def test_what_the_page_says_of_answers_is_so(widget: Widget) -> None:
    """Sentences of docs/reference/webchat-api.md that no other test shows, in its order."""
    answer = await widget.post("bootstrap", {"visitor": None, "language": "xx", "tenant": "x"})
    assert answer.headers["cache-control"] == "no-store"
    await widget.begin()
    # A field that the page does not name is ignored; a page's address that is none is left out.
    for page_url in ("javascript:alert(1)", f"https://shop.example/{'x' * 9000}", "\x00"):
        told = {"page_url": page_url, "tenant_id": str(uuid4()), "site_id": str(uuid4())}
        answer = await widget.post("sessions", told)
        assert answer.status_code == 200
        assert answer.json()["conversation"]["id"] == widget.conversation
    # What is refused may be read by the page too, and is kept nowhere.
    answer = await widget.client.post(
        f"{API}/messages", content=b"text=x", headers=widget.sent_headers()
    )
    assert problem_id(answer, 415) == "unsupported-media-type"
    assert answer.headers["access-control-allow-origin"] == widget.origin
    assert answer.headers["cache-control"] == "no-store"
    of = {"conversation_id": widget.conversation}
    assert problem_id(await widget.get("messages", **of, wait=26), 422) == "invalid"
    assert problem_id(await widget.post("contact", of), 422) == "invalid"
    # The state that is asked for differs, so nobody waits.
    async with asyncio.timeout(20):
        page = (await widget.get("messages", **of, wait=25, status="closed")).json()
    assert (page["messages"], page["more"]) == ([], False)
    assert problem_id(await widget.post("rating", {**of, "rating": 5}), 409) == "conflict"
    for _ in range(2):
        assert (await widget.post("end", of)).json()["conversation"]["status"] == "closed"
    for rating, status in (("5", 204), (3, 204), (6, 422), ("five", 422)):
        assert (await widget.post("rating", {**of, "rating": rating})).status_code == status
    for _ in range(2):
        answer = await widget.post("erase")
        assert (answer.status_code, answer.content) == (204, b"")
