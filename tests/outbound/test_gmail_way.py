"""Gmail's drafts and the mail server behind them: every answer, and never two letters."""

import asyncio
import datetime as dt
import json
import logging
import time
from ipaddress import IPv4Network
from typing import Any

import pytest

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.ledger import Mark
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.gmail import Earlier, MailWay, check_gmail, unseal_gmail
from fleetprompt.outbound.transports.smtp import Audience, Letter, unseal_smtp
from fleetprompt.settings import Settings
from tests.doubles.gmail import ACCOUNT, CANARY, Fault, Gmail, api_error, token_error
from tests.doubles.smtp import MailServer

SETTINGS = Settings(allowed_private_networks=(IPv4Network("127.0.0.0/8"),), allow_plain_http=True)
SENDER = "ada@fund.example"
ADMINS = ("ada@fund.example", "ben@fund.example")
LETTER = Letter("0f" * 16, "Acme", "text", "<p>text</p>", dt.datetime(2026, 3, 8, tzinfo=dt.UTC))


@pytest.fixture
def gmail(gmail: Gmail) -> Gmail:
    """Gmail, where the sender has a mailbox."""
    gmail.users.add(SENDER)
    return gmail


class Admins:
    """The active admins of the moment."""

    def __init__(self, *recipients: str) -> None:
        self.recipients = recipients

    async def __call__(self) -> Audience:
        return Audience(self.recipients[0] if self.recipients else None, self.recipients)


def way_of(
    gmail: Gmail | None, smtp: MailServer | None = None, admins: Admins | None = None, **named: Any
) -> MailWay:
    server = unseal_smtp(f"smtp://127.0.0.1:{smtp.port}", allow_plain=True) if smtp else None
    return MailWay(
        OutboundClient(SETTINGS),
        LETTER,
        admins or Admins(*ADMINS),
        unseal_gmail(gmail.sealed) if gmail else None,
        server,
        **named,
    )


async def go(way: MailWay) -> Outcome:
    """Prepare and send, as a delivery does."""
    mark = await way.prepare()
    return mark if isinstance(mark, Outcome) else await way.send("key", time.monotonic() + 30)


async def test_a_draft_is_made_noted_and_sent_as_the_sender(gmail: Gmail, smtp: MailServer) -> None:
    way = way_of(gmail, smtp)
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    assert list(gmail.drafts) == [mark.place]
    assert (mark.author, gmail.sent) == (SENDER, [])
    outcome = await way.send("key", time.monotonic() + 30)
    assert (outcome.state, way.went_by, way.recipients) == ("posted", "gmail", 2)
    ((user, message),) = gmail.sent
    assert (user, message["To"]) == (SENDER, ", ".join(ADMINS))
    assert message["X-FleetPrompt-Token"] == LETTER.token
    assert gmail.subjects == [SENDER]
    assert (gmail.drafts, smtp.mails) == ({}, [])


_TOKEN_ERRORS = [
    (401, "unauthorized_client", "rejected", "auth"),
    (400, "invalid_grant", "rejected", "auth"),
    (403, "access_denied", "rejected", "auth"),
    (429, "rate_limited", "retryable", "rate_limit"),
    (500, "internal_failure", "retryable", "network"),
]


@pytest.mark.parametrize(("status", "error", "state", "kind"), _TOKEN_ERRORS)
async def test_token_errors_are_definite_and_fall_back_unless_it_is_to_wait(
    gmail: Gmail, smtp: MailServer, status: int, error: str, state: str, kind: str
) -> None:
    gmail.faults["token"] = Fault(token_error(status, error), forever=True)
    alone = await go(way_of(gmail))
    assert (alone.state, alone.error_kind) == (state, kind)
    assert CANARY not in alone.message
    way = way_of(gmail, smtp)
    outcome = await go(way)
    if kind == "rate_limit":
        assert (outcome.state, smtp.mails) == ("retryable", [])
    else:
        assert (outcome.state, way.went_by, len(smtp.mails)) == ("posted", "smtp", 1)
    assert gmail.sent == []


_API_ERRORS = [
    (400, "invalidArgument", "rejected", "validation"),
    (400, "failedPrecondition", "rejected", "auth"),
    (401, "authError", "rejected", "auth"),
    (403, "insufficientPermissions", "rejected", "auth"),
    (403, "domainPolicy", "rejected", "auth"),
    (403, "forbidden", "rejected", "auth"),
    (403, "accessNotConfigured", "rejected", "auth"),
    (403, "dailyLimitExceeded", "retryable", "rate_limit"),
    (403, "userRateLimitExceeded", "retryable", "rate_limit"),
    (403, "rateLimitExceeded", "retryable", "rate_limit"),
    (413, "uploadTooLarge", "rejected", "validation"),
    (429, "userRateLimitExceeded", "retryable", "rate_limit"),
]


@pytest.mark.parametrize(("status", "reason", "state", "kind"), _API_ERRORS)
@pytest.mark.parametrize("operation", ["create", "send"])
async def test_errors_of_the_interface_by_their_reason(
    gmail: Gmail, operation: str, status: int, reason: str, state: str, kind: str
) -> None:
    """Trap 35: 403 may be a rate limit."""
    gmail.faults[operation] = Fault(api_error(status, reason), headers={"Retry-After": "77"})
    outcome = await go(way_of(gmail))
    assert (outcome.state, outcome.error_kind) == (state, kind)
    assert outcome.retry_after_seconds == (77 if kind == "rate_limit" else None)
    assert CANARY not in outcome.message
    assert gmail.sent == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault((500, {"error": {"code": 500, "errors": [{"reason": "backendError"}]}})),
        Fault((503, "<html>503</html>")),
        Fault((408, "<html>408</html>")),
        Fault((200, "<html>welcome to the hotel</html>")),
        Fault((200, {"unexpected": True})),
        Fault(lose="before"),
    ],
    ids=["500", "503", "408", "page", "shape", "lost"],
)
async def test_a_doubtful_draft_was_not_sent_and_a_doubtful_sending_is_unknown(
    gmail: Gmail, smtp: MailServer, fault: Fault
) -> None:
    """Trap 36: no mail server after a doubt."""
    gmail.faults["create"] = fault
    made = await go(way_of(gmail))
    assert made.state == "retryable"
    gmail.faults["send"] = fault
    way = way_of(gmail, smtp)
    sent = await go(way)
    assert (sent.state, smtp.mails, way.refused) == ("unknown", [], False)


async def test_a_redirect_is_not_followed(gmail: Gmail) -> None:
    gmail.faults["create"] = Fault((302, ""), headers={"Location": "http://127.0.0.1:1/"})
    assert (await go(way_of(gmail))).error_kind == "validation"


async def test_nobody_listening_at_google_falls_back(gmail: Gmail, smtp: MailServer) -> None:
    sealed = json.loads(gmail.sealed)
    key = json.loads(sealed["token"]) | {"token_uri": "http://127.0.0.1:1/token"}
    way = way_of(gmail, smtp)
    way.gmail = unseal_gmail(json.dumps(sealed | {"token": json.dumps(key)}))
    assert (await go(way)).state == "posted"
    assert (way.went_by, len(smtp.mails)) == ("smtp", 1)


async def test_a_lost_answer_is_settled_by_the_draft_that_is_gone(gmail: Gmail) -> None:
    """Trap 37: drafts.get 404 says that it was sent, and nothing is sent again."""
    way = way_of(gmail)
    gmail.faults["send"] = Fault(lose="after")
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    assert (await way.send("key", time.monotonic() + 30)).state == "unknown"
    seen = await way.look("key", mark)
    assert (seen.complete, seen.remote_id) == (True, f"draft:{mark.place}")
    assert len(gmail.sent) == 1


async def test_a_lost_request_is_settled_by_the_draft_that_is_there(gmail: Gmail) -> None:
    way = way_of(gmail)
    gmail.faults["send"] = Fault(lose="before")
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    assert (await way.send("key", time.monotonic() + 30)).state == "unknown"
    seen = await way.look("key", mark)
    assert (seen.complete, seen.remote_id) == (True, None)
    assert (await go(way)).state == "posted"
    assert gmail.calls.count("create") == 1, "the same draft is sent again"
    assert (len(gmail.sent), gmail.drafts) == (1, {})


async def test_a_draft_that_was_sent_meanwhile_stops_the_second_letter(
    gmail: Gmail, smtp: MailServer
) -> None:
    """Gmail sends a draft once: between the look and the resend the first request came through."""
    first = way_of(gmail, smtp)
    mark = await first.prepare()
    assert isinstance(mark, Mark)
    assert (await first.look("key", mark)).remote_id is None
    assert first.earlier is not None
    late = way_of(gmail)
    late._box, late._draft, late._drafted = first._box, first._draft, first._drafted
    assert (await late.send("key", time.monotonic() + 30)).state == "posted"
    again = await first.prepare()
    assert isinstance(again, Outcome)
    assert again.state == "unknown"
    assert (len(gmail.sent), smtp.mails) == (1, [])


@pytest.mark.parametrize("operation", ["token", "look"])
async def test_a_look_that_fails_proves_nothing(gmail: Gmail, operation: str) -> None:
    way = way_of(gmail)
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    for fault in (
        Fault((500, {})),
        Fault(lose="before"),
        Fault((404, "<html>no such page</html>")),
        Fault(api_error(403, "domainPolicy")),
    ):
        gmail.faults[operation] = fault
        seen = await way.look("key", mark)
        assert (seen.complete, seen.remote_id) == (False, None)


async def test_a_look_is_at_the_mailbox_that_the_draft_was_made_in(gmail: Gmail) -> None:
    gmail.users.add("ben@fund.example")
    way = way_of(gmail)
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    other = way_of(gmail, admins=Admins("ben@fund.example"))
    assert (await other.look("key", mark)).remote_id is None
    assert gmail.subjects[-1] == SENDER


async def test_the_fallback_waits_for_a_draft_that_gmail_refuses_to_send(
    gmail: Gmail, smtp: MailServer
) -> None:
    gmail.faults["send"] = Fault(api_error(403, "domainPolicy"))
    way = way_of(gmail, smtp)
    outcome = await go(way)
    assert (outcome.state, way.refused, smtp.mails) == ("retryable", True, [])
    (draft,) = gmail.drafts
    way.earlier = Earlier(draft, SENDER, certain=True, refused=True)
    assert (await go(way)).state == "posted"
    assert (way.went_by, len(smtp.mails), gmail.sent, gmail.drafts) == ("smtp", 1, [], {})


async def test_an_earlier_draft_in_doubt_keeps_the_mail_server_away(
    gmail: Gmail, smtp: MailServer
) -> None:
    """Trap 36, over attempts."""
    gmail.faults["token"] = Fault(token_error(500, "down"), forever=True)
    way = way_of(gmail, smtp, earlier=Earlier("r1", SENDER, certain=False, refused=False))
    outcome = await go(way)
    assert (outcome.state, smtp.mails) == ("unknown", [])


async def test_a_draft_gone_between_its_rewriting_and_its_sending_was_sent(gmail: Gmail) -> None:
    way = way_of(gmail)
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    gmail.drafts.clear()
    assert (await way.send("key", time.monotonic() + 30)).state == "unknown"
    assert (await way.look("key", mark)).remote_id == f"draft:{mark.place}"


async def test_a_letter_in_doubt_keeps_its_sender_and_gets_the_admins_of_now(gmail: Gmail) -> None:
    gmail.users.add("ben@fund.example")
    way = way_of(gmail)
    mark = await way.prepare()
    assert isinstance(mark, Mark)
    doubt = Earlier(mark.place or "", SENDER, certain=False, refused=False)
    again = way_of(gmail, admins=Admins("ben@fund.example"), earlier=doubt)
    assert (await go(again)).state == "posted"
    ((user, message),) = gmail.sent
    assert (user, message["To"]) == (SENDER, "ben@fund.example")


async def test_what_a_killed_attempt_left_is_removed(gmail: Gmail) -> None:
    await way_of(gmail).prepare()
    assert len(gmail.drafts) == 1
    way = way_of(gmail, repeated=True)
    assert (await go(way)).state == "posted"
    assert (len(gmail.sent), gmail.drafts) == (1, {})


@pytest.mark.parametrize("left", [("ben@fund.example",), ()], ids=["one", "nobody"])
async def test_who_is_no_admin_when_it_is_sent_gets_nothing(
    gmail: Gmail, left: tuple[str, ...]
) -> None:
    """Trap 38, between the draft and its sending."""
    admins = Admins(*ADMINS)
    way = way_of(gmail, admins=admins)
    assert isinstance(await way.prepare(), Mark)
    admins.recipients = left
    outcome = await way.send("key", time.monotonic() + 30)
    assert outcome.state == ("retryable" if left else "rejected")
    assert gmail.sent == []


async def test_after_its_time_nothing_is_sent(gmail: Gmail) -> None:
    way = way_of(gmail)
    assert isinstance(await way.prepare(), Mark)
    assert (await way.send("key", time.monotonic() - 1)).state == "retryable"
    assert gmail.sent == []


@pytest.mark.parametrize("operation", ["token", "create", "send"])
async def test_cancelled_while_it_waits_it_sent_at_most_once(gmail: Gmail, operation: str) -> None:
    gmail.faults[operation] = Fault(lose="slow")
    task = asyncio.create_task(go(way_of(gmail)))
    while operation not in gmail.calls:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.6)
    assert len(gmail.sent) == (1 if operation == "send" else 0)


async def test_a_key_is_checked_without_leaving_anything(
    gmail: Gmail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, account = OutboundClient(SETTINGS), unseal_gmail(gmail.sealed)
    assert await check_gmail(client, account, None) == Outcome("posted")
    assert await check_gmail(client, account, SENDER) == Outcome("posted")
    assert (await check_gmail(client, account, "eve@fund.example")).error_kind == "auth"
    assert (gmail.drafts, gmail.sent) == ({}, [])
    key = json.loads(json.loads(gmail.sealed)["token"])["private_key"].splitlines()[3]
    for shown in (repr(account), caplog.text):
        assert key not in shown
        assert "ya29." not in shown
    assert ACCOUNT in repr(account)


def test_keys_for_another_place_are_refused(gmail: Gmail) -> None:
    account = unseal_gmail(gmail.sealed)
    with pytest.raises(InvalidError):
        account.check_addresses(Settings())
    account.check_addresses(Settings(gmail_url=gmail.url, google_token_url=f"{gmail.url}/token"))


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "{}",
        '{"url": "https://gmail.googleapis.com", "token": "canary"}',
        '{"url": "https://gmail.googleapis.com", "token": "{\\"type\\": \\"user\\"}"}',
        '{"url": 1, "token": {}}',
    ],
)
def test_what_is_no_key_file_is_refused_without_repeating_it(sealed: str) -> None:
    with pytest.raises(InvalidError) as caught:
        unseal_gmail(sealed)
    assert "canary" not in caught.value.detail
