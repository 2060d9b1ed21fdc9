"""Posting and checking through the real client against the stand-in, over every answer."""

import logging
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from typing import Any

import pytest

from fleetprompt.clock import system_clock
from fleetprompt.errors import InvalidError
from fleetprompt.outbound.http import OutboundClient, Reply
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.mattermost import (
    TEXT_LIMIT,
    WebhookMessage,
    WebhookUrl,
    check_webhook,
    parse_channel,
    parse_webhook_url,
    post_webhook,
)
from fleetprompt.outbound.transports.mattermost.post import classify
from fleetprompt.settings import Settings
from tests.doubles.mattermost import RunningMattermost, running_mattermost

SECRET = "canary3secret3hook3id3abcd"


@pytest.fixture
def server() -> Iterator[RunningMattermost]:
    with running_mattermost(hook_id=SECRET) as running:
        yield running


@pytest.fixture
def client() -> OutboundClient:
    settings = Settings(
        allowed_private_networks=(ip_network("127.0.0.0/8"),), allow_plain_http=True
    )
    return OutboundClient(settings)


def hook(server: RunningMattermost) -> WebhookUrl:
    return parse_webhook_url(server.hook_url, allow_plain_http=True)


async def send(client: OutboundClient, server: RunningMattermost, **fields: Any) -> Outcome:
    return await post_webhook(client, hook(server), WebhookMessage(**{"text": "hello"} | fields))


async def test_a_post_with_everything(client: OutboundClient, server: RunningMattermost) -> None:
    """Traps 5 and 33: one POST; ignored overrides are no failure."""
    outcome = await send(
        client,
        server,
        text="## Daily digest 🦊",
        channel="#town-square",
        username="Fleet",
        icon_url="https://example.org/i.png",
        silent=True,
        props={"fleetprompt": {"key": "k"}},
    )
    assert outcome == Outcome("posted", http_status=200)
    assert [r.method for r in server.requests] == ["POST"]
    (post,) = server.posts
    assert (post.message, post.silent) == ("## Daily digest 🦊", True)
    assert post.channel_id == server.state.town_square.id
    assert post.props["fleetprompt"] == {"key": "k"}
    assert "override_username" not in post.props


# switches, channel, state, error kind, status, posts that are there afterwards
ANSWERS: list[tuple[dict[str, Any], str | None, str, str, int | None, int]] = [
    ({"hook_deleted": True}, None, "rejected", "auth", 400, 0),
    ({"hook_owner_missing": True}, None, "rejected", "auth", 403, 0),
    ({"hook_channel_locked": True}, "town-square", "rejected", "auth", 403, 0),
    ({"hook_owner_reads_private": False}, "leads", "rejected", "auth", 403, 0),
    ({}, "missing", "rejected", "validation", 404, 0),
    ({}, "old-reports", "rejected", "validation", 404, 0),
    ({"hook_bound_channel_gone": True}, None, "rejected", "validation", 404, 0),
    ({"webhooks_enabled": False}, None, "rejected", "validation", 501, 0),
    ({"rate_limited": True}, None, "retryable", "rate_limit", 429, 0),
    ({"proxy": "html_200"}, None, "rejected", "validation", 200, 0),
    ({"proxy": "html_403"}, None, "rejected", "validation", 403, 0),
    ({"proxy": "html_404"}, None, "rejected", "validation", 404, 0),
    ({"proxy": "redirect_to_https"}, None, "rejected", "validation", 301, 0),
    ({"proxy": "html_502"}, None, "unknown", "network", 502, 0),
    ({"proxy": "html_503"}, None, "unknown", "network", 503, 0),
    ({"proxy": "html_504"}, None, "unknown", "network", 504, 0),
    ({"fail_on_split": 1}, None, "unknown", "network", 500, 0),
    ({"fault": "error_after_save"}, None, "unknown", "network", 500, 1),
    ({"fault": "error_after_save", "hardened_mode": True}, None, "unknown", "network", 500, 1),
    ({"fault": "drop_before_save"}, None, "unknown", "network", None, 0),
    ({"fault": "drop_after_save"}, None, "unknown", "network", None, 1),
    ({"fault": "reset_after_save"}, None, "unknown", "network", None, 1),
    ({"fault": "endless_body"}, None, "unknown", "unknown", 200, 1),
]


@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize(("switches", "channel", "state", "kind", "status", "posts"), ANSWERS)
async def test_every_answer(
    client: OutboundClient,
    server: RunningMattermost,
    caplog: pytest.LogCaptureFixture,
    generation: str,
    switches: dict[str, Any],
    channel: str | None,
    state: str,
    kind: str,
    status: int | None,
    posts: int,
) -> None:
    """Traps 1, 2, 3, 6, 11 and 12; the secret is in none of it, at any level."""
    for name in ("", "httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    server.set(**switches, generation=generation, developer_mode=True)
    outcome = await send(client, server, channel=channel)
    assert (outcome.state, outcome.error_kind, outcome.http_status) == (state, kind, status)
    assert len(server.posts) == posts
    assert [r.method for r in server.requests] == ["POST"]
    assert (outcome.retry_after_seconds is not None) == (status == 429)
    assert outcome.message.endswith(".")
    assert SECRET not in repr(outcome) + caplog.text


async def test_a_request_too_large(client: OutboundClient, server: RunningMattermost) -> None:
    server.set(max_payload_bytes=100)
    outcome = await send(client, server, text="x" * 1000)
    assert (outcome.state, outcome.error_kind, outcome.http_status) == (
        "rejected",
        "validation",
        413,
    )


async def test_a_path_that_is_missing_is_a_redirect_with_a_hint(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 4: not followed, no GET."""
    url = hook(server)
    server.set(subpath="/mm")
    outcome = await post_webhook(client, url, WebhookMessage("x"))
    assert (outcome.state, outcome.http_status) == ("rejected", 302)
    assert "Site URL" in outcome.message
    assert [r.method for r in server.requests] == ["POST"]
    assert (await send(client, server)).state == "posted"


async def test_slow_answers_end_at_the_deadline(
    client: OutboundClient, server: RunningMattermost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traps 6 and 31: stalled or dripping, the post is there and nobody can say so."""
    request = client.request

    async def hurried(*args: Any, **more: Any) -> Reply:
        return await request(*args, **more, deadline_seconds=0.4)

    monkeypatch.setattr(client, "request", hurried)
    for fault in ("stall_after_save", "dripping_body"):
        server.set(fault=fault)
        started = time.monotonic()
        outcome = await send(client, server)
        assert outcome.state == "unknown"
        assert time.monotonic() - started < 2.0
    assert len(server.posts) == 2


async def test_a_server_that_is_away_is_safe_to_ask_again(client: OutboundClient) -> None:
    with running_mattermost(hook_id=SECRET) as gone:
        url = hook(gone)
    outcome = await post_webhook(client, url, WebhookMessage("x"))
    assert (outcome.state, outcome.error_kind) == ("retryable", "network")


async def test_a_private_address_is_refused_in_words() -> None:
    client = OutboundClient(Settings())
    url = parse_webhook_url(f"https://10.0.0.8/hooks/{SECRET}")
    outcome = await post_webhook(client, url, WebhookMessage("x"))
    assert (outcome.state, outcome.error_kind) == ("rejected", "validation")
    assert "FLEETPROMPT_ALLOWED_PRIVATE_NETWORKS" in outcome.message
    check = await check_webhook(client, url)
    assert (check.verdict, check.ok) == ("refused", False)


WAITS = [
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0"}, 1.0),
    ({"retry-after": "999999999999"}, 3600.0),
    ({"retry-after": "soon", "x-ratelimit-reset": "4"}, 4.0),
    ({"x-ratelimit-reset": "5"}, 5.0),
    ({"retry-after": "-3"}, 60.0),
    ({}, 60.0),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert classify(Reply(429, headers, b"", body_complete=True)).retry_after_seconds == seconds


def test_waiting_until_a_date() -> None:
    at = format_datetime(system_clock() + timedelta(seconds=100), usegmt=True)
    waited = classify(Reply(429, {"retry-after": at}, b"", body_complete=True)).retry_after_seconds
    assert waited is not None
    assert 95 < waited <= 100


@pytest.mark.parametrize(
    ("body", "content_type", "state"),
    [
        (b"ok", "text/plain", "posted"),
        (b"ok", "text/plain; charset=utf-8", "posted"),
        (b"ok", "application/json", "unknown"),
        (b'{"ok":true}', "application/json", "unknown"),
        (b"OK", "text/plain", "unknown"),
        (b"ok\n", "text/plain", "unknown"),
        (b"", "", "unknown"),
        (b"ok", "text/html", "rejected"),
    ],
)
def test_success_has_one_shape(body: bytes, content_type: str, state: str) -> None:
    """Trap 5."""
    reply = Reply(200, {"content-type": content_type}, body, body_complete=True)
    assert classify(reply).state == state
    assert classify(Reply(200, reply.headers, body, body_complete=False)).state != "posted"
    assert classify(Reply(201, reply.headers, body, body_complete=True)).state != "posted"


CHECKS: list[tuple[dict[str, Any], str]] = [
    ({}, "good"),
    ({"generation": "old"}, "good"),
    ({"hook_channel_locked": True}, "good"),
    ({"hook_deleted": True}, "unknown_webhook"),
    ({"webhooks_enabled": False}, "webhooks_disabled"),
    ({"rate_limited": True}, "rate_limited"),
    ({"proxy": "html_200"}, "not_mattermost"),
    ({"proxy": "html_404"}, "not_mattermost"),
    ({"proxy": "html_502"}, "not_mattermost"),
    ({"proxy": "redirect_to_https"}, "redirected"),
    ({"fault": "drop_before_save"}, "no_clear_answer"),
]


@pytest.mark.parametrize(("switches", "verdict"), CHECKS)
async def test_the_check_posts_nothing_and_says_what_is_wrong(
    client: OutboundClient, server: RunningMattermost, switches: dict[str, Any], verdict: str
) -> None:
    """Contract A9."""
    server.set(**switches)
    check = await check_webhook(client, hook(server))
    assert (check.verdict, check.ok) == (verdict, verdict == "good")
    assert check.message.endswith(".")
    assert SECRET not in repr(check)
    assert not server.posts


async def test_checking_a_server_that_is_away(client: OutboundClient) -> None:
    with running_mattermost(hook_id=SECRET) as gone:
        url = hook(gone)
    assert (await check_webhook(client, url)).verdict == "unreachable"


BAD_URLS = [
    ("http://chat.example.org/hooks/" + SECRET, "https://"),
    (f"https://chat.example.org/hooks/{SECRET}/", "slash"),
    (f"https://chat.example.org/hooks/{SECRET}?a=b", "?"),
    (f"https://chat.example.org/hooks/{SECRET}#a", "#"),
    (f"https://u:p@chat.example.org/hooks/{SECRET}", "password"),
    (f"https://chat.example.org/hooks/commands/{SECRET}", "slash command"),
    (f"https://chat.example.org/mm/{SECRET}", "/hooks/"),
    (f"https://chat.example.org/a%2fb/hooks/{SECRET}", "/hooks/"),
    ("https://chat.example.org/hooks/short", "26"),
    (f"https://chat.example.org/hooks/{SECRET[:-1]}-", "26"),
    (f"https://chat.example.org./hooks/{SECRET}", "dot"),
    (f"ftp://chat.example.org/hooks/{SECRET}", "https://"),
    (f"{SECRET}", "https://"),
    (f"https://{SECRET}[/hooks/{SECRET}", "host"),
    (f"https://chat.example.org/hooks/{SECRET} x", "blank"),
    ("", "https://"),
]


@pytest.mark.parametrize(("text", "hint"), BAD_URLS)
def test_urls_that_cannot_be_a_webhook(text: str, hint: str) -> None:
    """Trap 30; what was pasted is a secret even when it is wrong."""
    with pytest.raises(InvalidError) as caught:
        parse_webhook_url(text)
    assert hint in caught.value.detail
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in told.replace(f"parse_webhook_url({text!r})", "")


def test_a_webhook_url_hides_itself() -> None:
    url = parse_webhook_url(f"  https://Chat.Example.org:8443/team/mm/hooks/{SECRET}\n")
    assert url.reveal() == f"https://chat.example.org:8443/team/mm/hooks/{SECRET}"
    for shown in (repr(url), str(url), f"{url}", f"{url!r}", repr([url])):
        assert SECRET not in shown
        assert "chat.example.org" in shown


def test_names_of_channels() -> None:
    """Contract A8."""
    for good in ("town-square", "#town-square", " a ", "a__b", "x_y-z", "0", "a" * 64):
        assert parse_channel(good) == good.strip().removeprefix("#")
    group, direct = "0123456789abcdef" * 2 + "01234567", f"{'a' * 26}__{'b' * 26}"
    bad = ["", "#", "##a", "@ann", "Town", "town square", "-a", "_a", "a" * 65, "a.b", "é", "a\nb"]
    for name in [*bad, group, direct]:
        with pytest.raises(InvalidError):
            parse_channel(name)


def test_messages_that_the_server_would_split_or_refuse() -> None:
    """Trap 14."""
    assert WebhookMessage("🦊" * TEXT_LIMIT).payload()
    wrong: list[dict[str, Any]] = [
        {"text": ""},
        {"text": " \n"},
        {"text": "x" * (TEXT_LIMIT + 1)},
        {"text": "\ud800"},
        {"text": "x", "channel": "@ann"},
        {"text": "x", "username": ""},
        {"text": "x", "icon_url": "javascript:x"},
        {"text": "x", "props": {"from_webhook": "false"}},
        {"text": "x", "props": {"a": float("nan")}},
        {"text": "x", "props": {"a": object()}},
        {"text": "x", "props": {"a": "x" * 40_000}},
    ]
    for fields in wrong:
        with pytest.raises(InvalidError):
            WebhookMessage(**fields)


async def test_the_longest_message_is_one_post(
    client: OutboundClient, server: RunningMattermost
) -> None:
    assert (await send(client, server, text="字" * TEXT_LIMIT)).state == "posted"
    assert [len(p.message) for p in server.posts] == [TEXT_LIMIT]
