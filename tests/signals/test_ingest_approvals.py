"""What signal handlers ask for waits for approval like anybody's, from the transaction that stores it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.opening import NOT_SHOWABLE
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms, renew_outdated
from fleetprompt.directives.models import Directive
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Accepted, Producer, read_one
from fleetprompt.signals.handlers import DirectiveRequest, Handlers, SignalView
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.tenants.service import Tenant
from tests.directives.approving import Office

LETTER = {"to": "ada@example.org", "words": "hello"}


def _ask(signal: SignalView) -> list[DirectiveRequest]:
    return [
        DirectiveRequest(kind, dict(params), f"{kind}:{signal.data['n']}")
        for kind, params in signal.data["asks"]
    ]


HANDLERS = Handlers.of([("notes", {"contact.wrote": _ask})])


def signal(n: int, *asks: tuple[str, Mapping[str, Any]], key: str | None = None) -> list[Accepted]:
    envelope = {
        "type": "contact.wrote",
        "source": "test",
        "occurred_at": "2026-01-06T09:00:00Z",
        "dedupe_key": key or f"k{n}",
        "data": {"n": n, "asks": asks},
        "metadata": {"correlation_id": f"c{n}"},
    }
    return [read_one(msgspec.json.encode(envelope), Producer())]


@pytest.fixture
async def office(database: Database, settings: Settings, tenant: Tenant) -> Office:
    return await _with_notes(Office(database, settings, tenant))


async def _with_notes(office: Office) -> Office:
    async with office.database.tenant(office.tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO installations (id, package, version, state, config_checksum)"
                " VALUES (gen_random_uuid(), 'notes', '1.0.0', 'installed', '')"
            )
        )
    return office


@pytest.fixture
async def submit(office: Office) -> Any:
    """Stores signals in the office's tenant, or another one."""
    async with _Writing(office) as writer:

        async def send(items: list[Accepted], tenant: Tenant = office.tenant) -> None:
            await writer.submit(tenant.schema, items)

        yield send


class _Writing:
    def __init__(self, office: Office) -> None:
        self.writer = SignalWriter(
            application_url(office.settings), office.settings, HANDLERS, types=office.types
        )

    async def __aenter__(self) -> SignalWriter:
        await self.writer.start()
        return self.writer

    async def __aexit__(self, *_: object) -> None:
        await self.writer.close()


async def made(office: Office) -> list[tuple[Directive, Approval | None]]:
    async with office.database.tenant(office.tenant.schema) as session:
        found = await session.execute(
            select(Directive, Approval)
            .outerjoin(Approval, Approval.directive_id == Directive.id)
            .order_by(Directive.id)
        )
        return [(row[0], row[1]) for row in found]


Submit = Callable[..., Awaitable[None]]


async def test_a_handlers_request_is_shown_exactly_as_a_persons(
    office: Office, submit: Submit
) -> None:
    before = system_clock()
    await submit(signal(1, ("test.send", LETTER)))
    ((directive, approval),) = await made(office)
    assert approval is not None
    assert (directive.state, approval.state) == ("awaiting_approval", "waiting")
    assert (approval.proposed_by, approval.version) == ("package:notes", 1)
    asked = await office.ask()
    for name in ("action", "action_sha256", "policy", "policy_sha256", "rendering_version"):
        assert getattr(approval, name) == getattr(asked, name), name
    terms = (approval.expires_at - before).total_seconds()
    assert abs(terms - office.policy.expires_after_seconds) < 60
    assert await office.told(approval) == [
        "directive.requested", "directive.awaiting_approval", "approval.requested",
    ]  # fmt: skip
    await office.approve(approval, await office.person("admin"))
    (outcome,) = await office.work(approval)
    assert (outcome.state, office.sent) == ("succeeded", [LETTER])


async def test_the_tenants_terms_count_and_what_needs_none_is_pending_at_once(
    office: Office, submit: Submit
) -> None:
    await submit(signal(1, ("test.free", LETTER), ("test.send", LETTER)))
    assert [(d.type, d.state, a is None) for d, a in await made(office)] == [
        ("test.free", "pending", True),
        ("test.send", "awaiting_approval", False),
    ]
    policy = ApprovalPolicy(approvals=2, proposer_may_approve=False, expires_after_seconds=600)
    await _change(office, "test.free", policy)
    await _change(office, "test.send", policy)
    await submit(signal(2, ("test.free", LETTER), ("test.send", LETTER)))
    for directive, approval in (await made(office))[2:]:
        assert approval is not None
        assert (directive.state, approval.policy) == ("awaiting_approval", policy.as_json())
        until = (approval.expires_at - approval.created_at).total_seconds()
        assert abs(until - 600) < 5


async def test_the_same_signal_twice_opens_one_approval(office: Office) -> None:
    """By whichever writer, and under another dedupe key too: the idempotency key is one."""
    async with _Writing(office) as one, _Writing(office) as other:
        await asyncio.gather(
            *(
                writer.submit(
                    office.tenant.schema, signal(1, ("test.send", LETTER), key=f"k{number % 3}")
                )
                for number in range(9)
                for writer in (one, other)
            )
        )
    ((_, approval),) = await made(office)
    assert approval is not None
    assert (await office.told(approval)).count("approval.requested") == 1


async def test_one_flush_serves_several_tenants_each_by_its_own_terms(
    office: Office, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    other = await _with_notes(Office(office.database, office.settings, await new_tenant()))
    await _change(other, "test.free", ApprovalPolicy())
    writing = _Writing(office)
    sent = [
        asyncio.create_task(
            writing.writer.submit(place.tenant.schema, signal(n, ("test.free", LETTER)))
        )
        for place in (office, other)
        for n in range(3)
    ]
    await asyncio.sleep(0)  # all wait for one flush
    async with writing:
        await asyncio.gather(*sent)
    assert {(d.state, a is None) for d, a in await made(office)} == {("pending", True)}
    assert {(d.state, a is None) for d, a in await made(other)} == {("awaiting_approval", False)}


async def test_what_cannot_be_shown_is_called_off_and_the_signal_is_stored(
    office: Office, submit: Submit
) -> None:
    await submit(signal(1, ("test.send", {"number": 2**60}), ("test.send.2", {})))
    found = {directive.type: (directive, approval) for directive, approval in await made(office)}
    directive, approval = found["test.send"]
    assert (directive.state, directive.error_message) == ("cancelled", NOT_SHOWABLE)
    assert approval is None
    assert found["test.send.2"][0].state == "pending"
    async with office.database.tenant(office.tenant.schema) as session:
        stored = "SELECT count(*) FROM signals WHERE type = 'contact.wrote'"
        assert await session.scalar(text(stored)) == 1


async def test_an_approval_of_one_signals_text_does_not_release_anothers(
    office: Office, submit: Submit
) -> None:
    await submit(signal(1, ("test.send", LETTER)))
    await submit(signal(2, ("test.send", {**LETTER, "words": "goodbye"})))
    (_, one), (_, other) = await made(office)
    assert one is not None
    assert other is not None
    assert one.action_sha256 != other.action_sha256
    await office.approve(one, await office.person("admin"))
    assert await office.work(other) == []


async def test_terms_that_change_while_an_approval_opens_leave_nothing_stuck(
    office: Office, submit: Submit
) -> None:
    """Neither transaction saw the other: nobody could approve it until it is asked for anew."""
    await submit(signal(1, ("test.send", LETTER)))
    ((_, old),) = await made(office)
    assert old is not None
    new = ApprovalPolicy(approvals=1, proposer_may_approve=False)
    async with office.database.tenant(office.tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO approval_policies VALUES ('test.send', true, ARRAY['admin', 'owner'],"
                " 1, false, :seconds, 'user:olga')"
            ),
            {"seconds": new.expires_after_seconds},
        )
    async with office.database.tenant(office.tenant.schema) as session:
        assert await renew_outdated(session, types=office.types) == 1
        assert await renew_outdated(session, types=office.types) == 0
        (latest, before) = await service.list_approvals(session, directive_id=old.directive_id)
    assert (latest.version, latest.state, before.state) == (2, "waiting", "superseded")
    assert latest.policy == new.as_json()
    await office.approve(latest, await office.person("admin"))
    (outcome,) = await office.work(latest)
    assert outcome.state == "succeeded"


async def test_a_policy_that_comes_after_the_request_ends_it_visibly(
    office: Office, submit: Submit
) -> None:
    await submit(signal(1, ("test.free", LETTER)))
    ((directive, _),) = await made(office)
    await _change(office, "test.free", ApprovalPolicy())
    (outcome,) = await office.work(Approval(directive_id=directive.id))
    assert (outcome.state, office.sent) == ("failed", [])
    assert "needs an approval" in str(outcome.error_message)


async def _change(office: Office, kind: str, policy: ApprovalPolicy) -> None:
    async with office.database.tenant(office.tenant.schema) as session:
        await change_terms(
            session, office.types[kind], required=True, policy=policy,
            by=Actor("user:olga", "owner"),
        )  # fmt: skip
