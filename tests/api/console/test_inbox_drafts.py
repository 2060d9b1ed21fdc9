"""A draft of a reply in the inbox: asked for by people, put into the reply's field, never sent by itself."""

import re
from collections.abc import Iterator
from html import unescape

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import at_console, hidden_field, person
from tests.api.console.test_inbox import INBOX
from tests.api.support import Keys
from tests.doubles.llm import KEY, MODEL, Model, failing, running_model, saying
from tests.packages.chat_installed import Chat

HOSTILE = '</textarea><script>alert(1)</script> 49 EUR "quoted" & <b>more</b>'


@pytest.fixture
def model() -> Iterator[Model]:
    with running_model() as running:
        yield running


@pytest.fixture
def settings(settings: Settings, model: Model) -> Settings:
    """Of an operator who offers a model."""
    offered = {"llm_url": model.url, "llm_model": MODEL, "llm_key": SecretStr(KEY)}
    return settings.model_copy(update=offered)


@pytest.fixture
def chat(database: Database, settings: Settings, tenant: Tenant) -> Chat:
    """The platform as one tenant uses it."""
    return Chat(database, settings, tenant)


def reply_field(page: str) -> str:
    """What stands in the reply's field."""
    found = re.search(r'<textarea id="text"[^>]*>\n?(.*?)</textarea>', page, re.S)
    assert found is not None, page
    return unescape(found[1])


async def test_a_draft_comes_into_the_reply_field_as_text_is_marked_and_not_sent_by_itself(
    app: FastAPI, keys: Keys, chat: Chat, model: Model, tenant: Tenant
) -> None:
    """Trap 45, towards the inbox: what a model wrote breaks out of nothing."""
    await chat.installed(reply_drafts=True)
    visitor = await chat.visitor(await chat.site())
    await visitor.say("Do you ship to Iceland?")
    address = f"{INBOX}/{visitor.conversation}"
    model.answer = saying(HOSTILE)
    async with at_console(app, keys, tenant, await person(keys, tenant, "max", "member")) as client:
        assert "Suggest a reply" in (await client.get(address)).text
        typed = await client.post(f"{address}/draft", data={"text": "half a sen"})
        assert typed.status_code == 409
        assert reply_field(typed.text) == "half a sen"
        asked = await client.post(f"{address}/draft", data={"text": ""})
        assert asked.status_code == 303
        shown = asked.headers["location"].partition("#")[0]
        page = (await client.get(shown)).text
        assert "A draft is being written" in page
        assert "data-soon" in page
        assert reply_field(page) == ""

        await chat.work()
        page = (await client.get(shown)).text
        assert "Draft by a language model." in page
        assert 'aria-describedby="draft"' in page
        assert "<script>alert" not in page
        assert reply_field(page) == HOSTILE
        assert "these figures in the conversation: 1, 49." in page
        assert "Suggest a reply" not in page
        assert await chat.counted("webchat.reply_send") == 0
        # Who did not ask for it finds an empty field, and what happened in the story.
        page = (await client.get(address)).text
        assert reply_field(page) == ""
        assert "A draft of a reply was written" in page

        await visitor.say("Hello?")
        assert "Something was written since" in (await client.get(shown)).text
        form = {"key": hidden_field(page, "key"), "text": "Yes, we do."}
        assert (await client.post(f"{address}/reply", data=form)).status_code == 303
        await chat.work()
    (sent,) = await chat.told("webchat.reply.sent")
    assert sent["text"] == "Yes, we do."


async def test_why_there_is_no_draft_is_told_in_words_and_it_may_be_asked_for_again(
    app: FastAPI, keys: Keys, chat: Chat, model: Model, tenant: Tenant
) -> None:
    await chat.installed(reply_drafts=True)
    visitor = await chat.visitor(await chat.site())
    await visitor.say("Hello")
    address = f"{INBOX}/{visitor.conversation}"
    async with at_console(app, keys, tenant, await person(keys, tenant, "max", "member")) as client:
        for answer, words in (
            (failing(401), "There is no draft: "),
            (saying("See https://evil.example/login"), "links to another website"),
        ):
            model.answer = answer
            asked = await client.post(f"{address}/draft", data={"text": ""})
            await chat.work()
            page = (await client.get(asked.headers["location"].partition("#")[0])).text
            assert words in page
            assert KEY not in page
            assert "evil.example" not in page
            assert "Suggest a reply" in page
            assert reply_field(page) == ""


async def test_drafts_are_offered_only_where_they_are_on_and_to_who_may_reply(
    app: FastAPI, keys: Keys, chat: Chat, model: Model, tenant: Tenant
) -> None:
    installation = await chat.installed()
    visitor = await chat.visitor(await chat.site())
    address = f"{INBOX}/{visitor.conversation}"
    viewer = await person(keys, tenant, "vera", "viewer")
    async with at_console(app, keys, tenant, await person(keys, tenant, "max", "member")) as client:

        async def refused() -> bool:
            page = (await client.get(address)).text
            answer = await client.post(f"{address}/draft", data={"text": ""})
            assert answer.status_code in (303, 409)
            assert ("Suggest a reply" in page) == (answer.status_code == 303)
            return answer.status_code == 409

        await visitor.say("Hello")
        assert await refused(), "no administrator has switched them on"
        await chat.configure(installation.id, reply_drafts=True)
        async with at_console(app, keys, tenant, viewer) as seeing:
            assert "Suggest a reply" not in (await seeing.get(address)).text
            answer = await seeing.post(f"{address}/draft", data={"text": ""})
            assert answer.status_code == 403
        app.state.platform.settings = chat.settings.model_copy(update={"llm_url": None})
        assert await refused(), "the operator offers no model"
        app.state.platform.settings = chat.settings
        assert not await refused()
        strange = (await client.get(address, params={"draft": str(visitor.id)})).text
        assert "Draft by a language model" not in strange
    assert model.questions == []
