"""The stand-in that the widget's browser tests talk to answers with the members that the API has."""

from tests.api.webchat.widget import Widget
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
