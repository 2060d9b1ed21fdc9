"""A tenant's CAPTCHA in the place of work: asked of its vendor, used once, and never needed."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.errors import ChallengeRequiredError
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.captcha import PREFIX, Siteverify, offered, vouched
from tests.doubles.captcha import SECRET, CaptchaVendor, running_vendor
from tests.doubles.http_server import Answer
from tests.packages.chat_installed import Chat
from tests.webchat.visiting import Visitor


@pytest.fixture
def vendor() -> Iterator[CaptchaVendor]:
    with running_vendor() as running:
        yield running


@pytest.fixture
def chat(database: Database, settings: Settings, tenant: Tenant, vendor: CaptchaVendor) -> Chat:
    """The platform, with the vendor where the stand-in is."""
    return Chat(database, settings.model_copy(update={"turnstile_url": vendor.url}), tenant)


async def come(chat: Chat, visitor: Visitor, answer: str | None) -> bool:
    """Whether a guest who is asked for more may go on with this answer."""
    client = OutboundClient(chat.settings)
    guest = await vouched(
        replace(visitor.guest(), answer=answer), client, chat.vault, chat.settings
    )
    async with chat.database.tenant(chat.tenant.schema) as session:
        try:
            await guest.admit_session(session)
        except ChallengeRequiredError:
            return False
    return True


async def test_an_answer_that_the_vendor_confirms_counts_once_instead_of_work(
    chat: Chat, vendor: CaptchaVendor, capfd: pytest.CaptureFixture[str]
) -> None:
    installation = await chat.installed(captcha="turnstile", captcha_site_key="0x4AAA_public")
    await chat.connect_kind(installation.id, "captcha", SECRET)
    site = await chat.site(limits={"free_sessions_per_address_hour": 0})
    assert offered(site) == {"vendor": "turnstile", "site_key": "0x4AAA_public"}
    visitor = Visitor(chat.database, site)
    vendor.answers = {"first", "second"}
    assert not await come(chat, visitor, None)
    assert not await come(chat, visitor, f"{PREFIX}made-up")
    assert await come(chat, visitor, f"{PREFIX}first")
    assert not await come(chat, visitor, f"{PREFIX}first")
    assert await come(chat, visitor, f"{PREFIX}second")
    for request in vendor.requests:
        # The vendor is told the answer, and nothing of the visitor.
        assert b"198.51.100" not in request.body
    assert SECRET not in "".join(capfd.readouterr())
    # Work is what the vendor's absence leaves.
    vendor.instead = Answer(500)
    assert not await come(chat, visitor, f"{PREFIX}third")


async def test_a_secret_that_the_vendor_does_not_know_shows_on_the_installation(
    chat: Chat, vendor: CaptchaVendor
) -> None:
    installation = await chat.installed(captcha="turnstile", captcha_site_key="0x4AAA_public")
    await chat.connect_kind(installation.id, "captcha", "another-one")
    site = await chat.site(limits={"free_sessions_per_address_hour": 0})
    vendor.answers = {"first"}
    assert not await come(chat, Visitor(chat.database, site), f"{PREFIX}first")
    found = await chat.installation(installation.id)
    assert (found.state, found.last_error_kind) == ("degraded", "auth")
    assert "Connect the secret" in str(found.last_error)


async def test_without_a_captcha_nobody_is_asked_and_no_such_answer_counts(
    chat: Chat, vendor: CaptchaVendor
) -> None:
    site = await chat.site(limits={"free_sessions_per_address_hour": 0})
    assert offered(site) is None
    vendor.answers = {"first"}
    assert not await come(chat, Visitor(chat.database, site), f"{PREFIX}first")
    assert vendor.requests == []


@pytest.mark.parametrize(
    ("instead", "verdict"),
    [
        (Answer(drop=True), "unreachable"),
        (Answer(200, b"<html>"), "unreachable"),
        (Answer(200, b"[]"), "unreachable"),
        (Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), "unreachable"),
        (Answer(200, b'{"success": "true"}'), "refused"),
        (Answer(200, b'{"success": false, "error-codes": ["invalid-input-secret"]}'), "bad_secret"),
        (Answer(400, b'{"success": false, "error-codes": ["x"]}'), "refused"),
        (Answer(200, b'{"success": true}'), "holds"),
    ],
)
async def test_only_a_clear_yes_holds(
    settings: Settings, vendor: CaptchaVendor, instead: Answer, verdict: str
) -> None:
    vendor.instead = instead
    captcha = Siteverify(OutboundClient(settings), vendor.url)
    assert await captcha.check(SECRET, str(uuid4())) == verdict
    assert await captcha.check(SECRET, "") == "refused"
    assert await captcha.check(SECRET, "é" * 10) == "refused"
    assert len(vendor.requests) == 1


def test_a_guest_is_not_vouched_for_by_what_a_visitor_sends() -> None:
    assert Guest.__dataclass_fields__["solved"].default is False
