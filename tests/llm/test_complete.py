"""Asking a language model: whatever the other side does, within time, bytes and the day's budget."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

from fleetprompt.db.engine import Database
from fleetprompt.llm import Completion, Endpoint, Failure, Message, Usage, complete, configured
from fleetprompt.llm.chat import ANSWER_BYTES, QUESTION_BYTES
from fleetprompt.llm.models import LlmDay
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.secret import Secret
from tests.doubles.llm import (
    CANARY,
    KEY,
    MODEL,
    Answer,
    Model,
    failing,
    running_model,
    saying,
)

QUESTION = [Message("system", "Be brief."), Message("user", "What happened, marker-71c2?")]
DAY = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
# 25 + 25 bytes of text and the template's of two messages and an answer.
MOST_IN = sum(len(one.content) for one in QUESTION) + 3 * 32


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Model]:
    with running_model() as model:
        yield model


@pytest.fixture
def model(stand_in: Model) -> Model:
    stand_in.answer = saying("A quiet day.")
    stand_in.questions.clear()
    return stand_in


@pytest.fixture
def endpoint(settings: Settings, model: Model) -> Endpoint:
    made = configured(
        settings.model_copy(
            update={
                "llm_url": model.url,
                "llm_model": MODEL,
                "llm_key": SecretStr(KEY),
                "llm_seconds": 10.0,
                "llm_answer_tokens": 100,
                "llm_price_in": Decimal("0.15"),
                "llm_price_out": Decimal("0.60"),
            }
        )
    )
    assert made is not None
    return made


@pytest.fixture
def client(settings: Settings) -> OutboundClient:
    return OutboundClient(settings)


async def day_of(database: Database, tenant: Tenant, now: datetime = DAY) -> tuple[int, ...]:
    """Calls, tokens and millionths of a dollar of a day."""
    async with database.tenant(tenant.schema) as session:
        row = await session.scalar(select(LlmDay).where(LlmDay.day == now.date()))
    return (0, 0, 0) if row is None else (row.calls, row.tokens, row.micro_dollars)


def test_nothing_is_configured_unless_the_operator_names_an_endpoint() -> None:
    assert configured(Settings()) is None
    assert configured(Settings(llm_url="https://models.example/v1")) is None


async def test_a_question_gets_its_text_and_what_it_used_is_counted(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    model.answer = saying(" All\x00 went\x1b[1m well.\n", tokens=(1000, 21))
    outcome = await complete(database, client, tenant, endpoint, QUESTION, clock=lambda: DAY)
    assert isinstance(outcome, Completion)
    assert outcome.text == "All went[1m well."
    # 1,000 x 0.15 + 21 x 0.60 = 162.6 millionths, rounded up.
    assert outcome.usage == Usage(1000, 21, 163)
    assert outcome.usage.dollars == Decimal("0.000163")
    assert await day_of(database, tenant) == (1, 1021, 163)
    (asked,) = model.questions
    assert asked == {
        "model": MODEL,
        "messages": [{"role": one.role, "content": one.content} for one in QUESTION],
        "max_tokens": 100,
        "stream": False,
    }


REFUSED = [
    (failing(401), "auth"),
    (failing(403), "auth"),
    (failing(404), "rejected"),
    (failing(400), "rejected"),
    (failing(429, **{"Retry-After": "7"}), "rate_limit"),
    (failing(302, Location="http://127.0.0.1:1/v1"), "rejected"),
    (failing(204), "rejected"),
]
# Those after which the work may have been done: the most that it can have cost stays counted.
IN_DOUBT = [
    (failing(500), "server"),
    (failing(503), "server"),
    (Answer(how="dropped"), "lost"),
    (replace(saying("half"), how="cut"), "lost"),
    (Answer(body=b"x" * (ANSWER_BYTES + 1)), "too_large"),
    (Answer(body=b"<html>fine</html>"), "malformed"),
    (Answer(body=b"[" * 50_000), "malformed"),
    (Answer(body=b'{"choices": [], "usage": null}'), "malformed"),
    (saying("", tokens=None), "malformed"),
    (saying("text", tokens=(-1, 2), finish="length"), "cut_short"),
]
TOLD = [
    (saying(None, tokens=(40, 0)), "malformed"),
    (saying("Half a tho", tokens=(40, 100), finish="length"), "cut_short"),
    (saying("", tokens=(40, 3), finish="content_filter"), "cut_short"),
]


async def test_what_was_refused_costs_nothing(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    for number, (answer, kind) in enumerate(REFUSED, start=1):
        model.answer = answer
        model.questions.clear()
        outcome = await complete(database, client, tenant, endpoint, QUESTION, clock=lambda: DAY)
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.usage) == (kind, Usage()), answer
        assert await day_of(database, tenant) == (number, 0, 0)
        assert len(model.questions) == 1


async def test_what_may_have_been_done_stays_counted_at_its_most(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    most = endpoint.usage(MOST_IN, 100)
    for number, (answer, kind) in enumerate(IN_DOUBT, start=1):
        model.answer = answer
        outcome = await complete(database, client, tenant, endpoint, QUESTION, clock=lambda: DAY)
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.usage) == (kind, most), answer
        counted = (number, number * (MOST_IN + 100), number * most.micro_dollars)
        assert await day_of(database, tenant) == counted


async def test_an_unusable_text_costs_what_the_endpoint_says(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    tokens = 0
    for answer, kind in TOLD:
        model.answer = answer
        outcome = await complete(database, client, tenant, endpoint, QUESTION, clock=lambda: DAY)
        assert isinstance(outcome, Failure)
        assert outcome.kind == kind
        tokens += outcome.usage.tokens_in + outcome.usage.tokens_out
    assert tokens == 40 + 140 + 43
    assert (await day_of(database, tenant))[1] == tokens


async def test_no_answer_is_waited_for_beyond_the_cap(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    for how in ("silent", "drip"):
        model.answer = replace(saying("slow " * 100), how=how)
        outcome = await complete(
            database, client, tenant, endpoint, QUESTION, seconds=0.3, clock=lambda: DAY
        )
        assert isinstance(outcome, Failure)
        assert outcome.kind == "timeout"
        # Far below the endpoint's own ten seconds: the caller's shorter time counts.
        assert 0.25 < outcome.seconds < 8


async def test_where_nobody_listens_and_where_nobody_may_go(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint
) -> None:
    found = []
    for url in ("http://127.0.0.1:9/v1", "http://192.168.7.7/v1", "ftp://models.example/v1"):
        elsewhere = replace(endpoint, url=url)
        outcome = await complete(database, client, tenant, elsewhere, QUESTION, clock=lambda: DAY)
        assert isinstance(outcome, Failure)
        found.append(outcome.kind)
    assert found == ["unreachable", "refused", "refused"]
    assert await day_of(database, tenant) == (3, 0, 0)


async def test_the_days_budget_holds_whatever_asks_at_once(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    most = endpoint.usage(MOST_IN, 100)
    model.answer = failing(500)
    # The second round starts with five calls counted and has room for four.
    for bounded, expected in (
        (replace(endpoint, daily_tokens=5 * (MOST_IN + 100) + 7), 5),
        (replace(endpoint, daily_micro_dollars=10 * most.micro_dollars - 1), 4),
    ):
        model.questions.clear()
        outcomes = await asyncio.gather(
            *(
                complete(database, client, tenant, bounded, QUESTION, clock=lambda: DAY)
                for _ in range(12)
            )
        )
        kinds = [one.kind for one in outcomes if isinstance(one, Failure)]
        assert (kinds.count("server"), kinds.count("budget")) == (expected, 12 - expected)
        assert len(model.questions) == expected
    calls, tokens, dollars = await day_of(database, tenant)
    assert (calls, tokens, dollars) == (9, 9 * (MOST_IN + 100), 9 * most.micro_dollars)
    assert [one.usage for one in outcomes if isinstance(one, Failure) and one.kind == "budget"] == (
        [Usage()] * 8
    )


async def test_a_new_day_and_another_tenant_have_budgets_of_their_own(
    database: Database,
    client: OutboundClient,
    tenant: Tenant,
    new_tenant: Any,
    endpoint: Endpoint,
) -> None:
    other = await new_tenant()
    tight = replace(endpoint, daily_tokens=MOST_IN + 100)

    async def asked(who: Tenant, now: datetime) -> object:
        return await complete(database, client, who, tight, QUESTION, clock=lambda: now)

    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    assert isinstance(await asked(tenant, DAY), Completion)
    spent = await asked(tenant, DAY)
    assert isinstance(spent, Failure)
    assert spent.kind == "budget"
    assert isinstance(await asked(tenant, midnight), Completion)
    assert isinstance(await asked(other, DAY), Completion)
    assert (await day_of(database, tenant, midnight))[0] == 1


async def test_a_caller_that_is_stopped_leaves_its_call_counted(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    model.answer = Answer(how="silent")
    work = asyncio.create_task(
        complete(database, client, tenant, endpoint, QUESTION, clock=lambda: DAY)
    )
    async with asyncio.timeout(30):
        while not model.questions:
            await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await day_of(database, tenant) == (
        1,
        MOST_IN + 100,
        endpoint.usage(MOST_IN, 100).micro_dollars,
    )


async def test_a_question_is_bounded_before_anything_is_counted(
    database: Database, client: OutboundClient, tenant: Tenant, endpoint: Endpoint, model: Model
) -> None:
    too_long = [Message("user", "é" * (QUESTION_BYTES // 2 + 1))]
    with pytest.raises(ValueError, match="bytes are more"):
        await complete(database, client, tenant, endpoint, too_long, clock=lambda: DAY)
    assert model.questions == []
    assert await day_of(database, tenant) == (0, 0, 0)


async def test_key_question_and_answer_are_told_nowhere(
    database: Database,
    owner: Database,
    client: OutboundClient,
    tenant: Tenant,
    endpoint: Endpoint,
    model: Model,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    told = [repr(endpoint), str(endpoint)]
    unusable = replace(endpoint, key=Secret(f"{KEY}\r\nX: é"))
    for one, answer in [
        (endpoint, saying(f"Fine {CANARY}")),
        (endpoint, failing(401)),
        (endpoint, failing(500)),
        (endpoint, Answer(body=CANARY.encode())),
        (endpoint, failing(302, Location=f"http://127.0.0.1/{CANARY}")),
        (unusable, saying("never asked")),
    ]:
        model.answer = answer
        outcome = await complete(database, client, tenant, one, QUESTION, clock=lambda: DAY)
        if isinstance(outcome, Failure):
            told.append(repr(outcome))
    assert outcome.kind == "auth"  # type: ignore[union-attr]
    async with owner.platform() as session:
        dump = (await session.execute(text(f'SELECT * FROM "{tenant.schema}".llm_days'))).all()
    told += [caplog.text, repr(dump)]
    for secret in (KEY, CANARY, "marker-71c2"):
        assert secret not in "\n".join(told)
    # The address may be told of, the path behind it is nobody's business.
    assert "127.0.0.1" in caplog.text
    assert "/v1/chat" not in caplog.text
