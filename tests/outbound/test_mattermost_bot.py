"""Posting with a token, looking for posts and checking a token, over every answer of the stand-in."""

import asyncio
import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from mattermostautodriver import TypedDriver

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.sighting import Sighting
from fleetprompt.outbound.transports.mattermost import (
    Server,
    check_token,
    parse_server,
    unseal_server,
)
from fleetprompt.outbound.transports.mattermost.rest import (
    Whereabouts,
    look_for_post,
    post_as_bot,
    whereabouts,
)
from fleetprompt.settings import Settings
from tests.doubles.mattermost import Post, RunningMattermost, running_mattermost

TEAM, CHANNEL, KEY = "operations", "fleet-reports", "fleetprompt:0190"


@pytest.fixture
def server() -> Iterator[RunningMattermost]:
    with running_mattermost() as running:
        yield running


@pytest.fixture
def client() -> OutboundClient:
    return OutboundClient(
        Settings(allowed_private_networks=(ip_network("127.0.0.0/8"),), allow_plain_http=True)
    )


def token_of(server: RunningMattermost, token: str | None = None) -> Server:
    return parse_server(server.base_url, token or server.state.bot_token, allow_plain_http=True)


async def where(client: OutboundClient, server: RunningMattermost) -> Whereabouts:
    found = await whereabouts(client, token_of(server), TEAM, CHANNEL)
    assert isinstance(found, Whereabouts)
    return found


async def post(
    client: OutboundClient, server: RunningMattermost, key: str = KEY, **more: Any
) -> Outcome:
    channel_id = more.pop("channel_id", server.state.reports.id)
    silent = more.pop("silent", False)
    token = more.pop("token", None)
    text = more.pop("text", "hello")
    return await post_as_bot(client, token_of(server, token), channel_id, text, key, silent=silent)


async def look(
    client: OutboundClient, server: RunningMattermost, since: Whereabouts, key: str = KEY
) -> Sighting:
    return await look_for_post(client, token_of(server), since.mark, key, by_webhook=False)


async def test_a_post_is_made_once_and_an_independent_client_sees_it(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 7, on one node: the same key within 30 seconds is the same post."""
    outcome = await post(client, server, silent=True)
    again = await post(client, server, silent=True)
    assert outcome.state == again.state == "posted"
    assert outcome.remote_id == again.remote_id == server.posts[0].id
    assert (len(server.posts), server.posts[0].silent) == (1, True)
    options = {"scheme": "http", "url": "127.0.0.1", "port": server.port, "max_retries": 0}
    with TypedDriver(options | {"token": server.state.bot_token}) as driver:
        driver.login()
        seen = driver.posts.get_post(outcome.remote_id)
    assert (seen["message"], seen["props"]["fleetprompt"]) == ("hello", {"key": KEY})


# switches, changes of the call, state, error kind, status, posts that are there afterwards
ANSWERS: list[tuple[dict[str, Any], dict[str, Any], str, str, int | None, int]] = [
    ({"token_expired": True}, {}, "rejected", "auth", 401, 0),
    ({}, {"token": "a" * 26}, "rejected", "auth", 401, 0),
    ({"bot_is_member": False}, {}, "rejected", "auth", 403, 0),
    ({}, {"channel_id": "z" * 26}, "rejected", "auth", 403, 0),
    ({}, {"channel_id": "archived"}, "rejected", "validation", 400, 0),
    ({}, {"text": "x" * 16_384}, "rejected", "validation", 400, 0),
    ({"max_payload_bytes": 10}, {"text": "x" * 900}, "rejected", "validation", 413, 0),
    ({"subpath": "/mm"}, {"outside": True}, "rejected", "validation", 302, 0),
    ({"rate_limited": True}, {}, "retryable", "rate_limit", 429, 0),
    ({"proxy": "html_200"}, {}, "rejected", "validation", 200, 0),
    ({"proxy": "html_404"}, {}, "rejected", "validation", 404, 0),
    ({"proxy": "redirect_to_https"}, {}, "rejected", "validation", 301, 0),
    ({"proxy": "html_502"}, {}, "unknown", "network", 502, 0),
    ({"token_in_error": True}, {}, "unknown", "network", 500, 0),
    ({"fault": "error_after_save"}, {}, "unknown", "network", 500, 1),
    ({"fault": "drop_before_save"}, {}, "unknown", "network", None, 0),
    ({"fault": "drop_after_save"}, {}, "unknown", "network", None, 1),
    ({"fault": "reset_after_save"}, {}, "unknown", "network", None, 1),
    ({"fault": "endless_body"}, {}, "unknown", "unknown", 201, 1),
]


@pytest.mark.parametrize(("switches", "call", "state", "kind", "status", "posts"), ANSWERS)
async def test_every_answer_to_a_post(
    client: OutboundClient,
    server: RunningMattermost,
    caplog: pytest.LogCaptureFixture,
    switches: dict[str, Any],
    call: dict[str, Any],
    state: str,
    kind: str,
    status: int | None,
    posts: int,
) -> None:
    """Traps 1 to 4, 11, 12 and 13; the token is in none of it."""
    for name in ("", "httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    outside = token_of(server)
    server.set(**switches, developer_mode=True)
    call = dict(call)
    if call.get("channel_id") == "archived":
        call["channel_id"] = server.state.archived.id
    if call.pop("outside", False):
        outcome = await post_as_bot(
            client, outside, server.state.reports.id, "hello", KEY, silent=False
        )
        assert "Site URL" in outcome.message
    else:
        outcome = await post(client, server, **call)
    assert (outcome.state, outcome.error_kind, outcome.http_status) == (state, kind, status)
    assert len(server.posts) == posts
    assert [r.method for r in server.requests] == ["POST"]
    assert (outcome.retry_after_seconds is not None) == (status == 429)
    assert outcome.message.endswith(".")
    assert server.state.bot_token not in repr(outcome) + caplog.text


async def test_t8_a_twin_in_flight_is_in_doubt_and_the_next_ask_gives_its_id(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 8."""
    server.set(save_seconds=1.0)
    first = asyncio.create_task(post(client, server))
    while not server.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    twin = await post(client, server)
    assert (twin.state, twin.http_status) == ("unknown", 500)
    assert (await post(client, server)).state in ("unknown", "posted")
    made = await first
    assert (await post(client, server)).remote_id == made.remote_id
    assert len(server.posts) == 1


async def test_t29_no_cookie_is_kept_or_sent(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 29: the answer to a post sets one that would beat the token."""
    assert (await post(client, server, "a")).state == "posted"
    assert (await post(client, server, "b")).state == "posted"
    assert (await where(client, server)).user.username == "fleetprompt"


async def test_t9_a_post_that_was_deleted_is_found(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 9."""
    since = await where(client, server)
    assert await look(client, server, since) == Sighting(None, True)
    made = await post(client, server)
    assert await look(client, server, since) == Sighting(made.remote_id, True)
    server.state.delete_post(server.posts[0].id)
    assert await look(client, server, since) == Sighting(made.remote_id, True)


@pytest.mark.parametrize("position", [0, 700, 1499])
async def test_t10_among_1500_posts_it_is_found_or_its_absence_is_no_proof(
    client: OutboundClient, server: RunningMattermost, position: int
) -> None:
    """Trap 10."""
    since = await where(client, server)
    made = None
    for number in range(1500):
        if number == position:
            made = await post(client, server)
        else:
            put_by_somebody_else(server, f"m{number}")
    assert made is not None
    assert (await look(client, server, since)).remote_id == made.remote_id
    missing = await look(client, server, since, "fleetprompt:other")
    assert (missing.remote_id, missing.complete, missing.error_kind) == (None, False, "unknown")


async def test_t7_a_lagging_replica_does_not_show_it_yet(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 7: that is why one complete look in vain proves nothing."""
    since = await where(client, server)
    server.set(replica_lag_seconds=30.0, replicas=2)
    made = await post(client, server)
    seen = [(await look(client, server, since)).remote_id for _ in range(4)]
    assert set(seen) == {None, made.remote_id}


async def test_t7_the_servers_clock_counts_when_looking(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """A server whose clock is an hour behind or ahead of ours."""
    for offset in (-3600.0, 3600.0):
        server.set(clock_offset_seconds=offset)
        server.state.reset()
        since = await where(client, server)
        made = await post(client, server, f"k{offset}")
        assert (await look(client, server, since, f"k{offset}")).remote_id == made.remote_id


async def test_a_copy_of_the_key_by_somebody_else_is_not_the_post(
    client: OutboundClient, server: RunningMattermost
) -> None:
    since = await where(client, server)
    forged = put_by_somebody_else(server, "not it")
    forged.props = {"fleetprompt": {"key": KEY}}
    assert await look(client, server, since) == Sighting(None, True)
    by_webhook = await look_for_post(client, token_of(server), since.mark, KEY, by_webhook=True)
    assert by_webhook == Sighting(None, True)


@pytest.mark.parametrize(
    ("switches", "kind"),
    [
        ({"token_expired": True}, "auth"),
        ({"bot_may_read": False}, "auth"),
        ({"rate_limited": True}, "rate_limit"),
        ({"token_in_error": True}, "network"),
        ({"proxy": "html_200"}, "validation"),
        ({"proxy": "html_502"}, "network"),
    ],
)
async def test_t10_a_look_that_fails_proves_nothing(
    client: OutboundClient, server: RunningMattermost, switches: dict[str, Any], kind: str
) -> None:
    """Trap 10: an inconclusive read."""
    since = await where(client, server)
    await post(client, server)
    server.set(**switches)
    seen = await look(client, server, since)
    assert (seen.remote_id, seen.complete, seen.error_kind) == (None, False, kind)
    assert seen.message.endswith(".")


async def test_without_a_mark_there_is_nowhere_to_look(
    client: OutboundClient, server: RunningMattermost
) -> None:
    since = await where(client, server)
    nowhere = replace(since.mark, place=None)
    seen = await look_for_post(client, token_of(server), nowhere, KEY, by_webhook=False)
    assert (seen.complete, len(server.requests)) == (False, 2)


# switches, team, channel, whether it posts, verdict, a word that the message must hold
CHECKS: list[tuple[dict[str, Any], str | None, str, bool, str, str]] = [
    ({}, None, CHANNEL, True, "good", "Name the team"),
    ({}, TEAM, CHANNEL, True, "good", "may post to fleet-reports"),
    ({}, TEAM, CHANNEL, False, "good", "may read fleet-reports"),
    ({"bot_is_member": False}, TEAM, CHANNEL, True, "forbidden", "not a member"),
    ({"bot_is_member": False}, TEAM, CHANNEL, False, "good", "may read"),
    ({"bot_may_read": False}, TEAM, CHANNEL, False, "refused", "private"),
    ({}, "nowhere", CHANNEL, True, "refused", "channel's URL"),
    ({}, TEAM, "missing", True, "refused", "archived"),
    ({}, TEAM, "old-reports", True, "refused", "archived"),
    ({}, TEAM, "leads", True, "refused", "private"),
    ({"token_expired": True}, TEAM, CHANNEL, True, "forbidden", "token"),
    ({"token_in_error": True}, TEAM, CHANNEL, True, "no_clear_answer", "500"),
    ({"rate_limited": True}, TEAM, CHANNEL, True, "rate_limited", "limiting"),
    ({"proxy": "html_200"}, TEAM, CHANNEL, True, "refused", "address"),
    ({"proxy": "html_404"}, TEAM, CHANNEL, True, "refused", "/api/v4/"),
    ({"proxy": "redirect_to_https"}, TEAM, CHANNEL, True, "redirected", "Site URL"),
]


@pytest.mark.parametrize(("switches", "team", "channel", "posts", "verdict", "word"), CHECKS)
async def test_the_check_of_a_token_posts_nothing_and_says_what_is_wrong(
    client: OutboundClient,
    server: RunningMattermost,
    switches: dict[str, Any],
    team: str | None,
    channel: str,
    posts: bool,
    verdict: str,
    word: str,
) -> None:
    """Trap 13 among them: the words name both causes."""
    server.set(**switches)
    check = await check_token(client, token_of(server), team, channel, posts=posts)
    assert (check.verdict, check.ok) == (verdict, verdict == "good")
    assert word in check.message
    assert server.state.bot_token not in repr(check)
    assert not server.posts
    assert {r.method for r in server.requests} == {"GET"}


async def test_a_person_whose_tokens_are_switched_off_is_told(
    client: OutboundClient, server: RunningMattermost
) -> None:
    person = token_of(server, server.state.owner_token)
    assert (await check_token(client, person, TEAM, CHANNEL)).ok
    server.set(personal_tokens_enabled=False)
    assert "switched off" in (await check_token(client, person)).message
    server.set(personal_tokens_enabled=True, second_factor_enforced=True)
    assert "second factor" in (await check_token(client, person)).message


async def test_checking_a_server_that_is_away(client: OutboundClient) -> None:
    with running_mattermost() as gone:
        server = token_of(gone)
    assert (await check_token(client, server)).verdict == "unreachable"


GOOD_TOKEN = "canary3secret3token3id3abc"


@pytest.mark.parametrize(
    ("url", "token", "hint"),
    [
        ("http://chat.example.org", GOOD_TOKEN, "https://"),
        ("https://chat.example.org?x=1", GOOD_TOKEN, "alone"),
        ("https://chat.example.org/a%2fb", GOOD_TOKEN, "alone"),
        (f"https://chat.example.org/hooks/{GOOD_TOKEN}", GOOD_TOKEN, "webhook"),
        ("https://u:p@chat.example.org", GOOD_TOKEN, "password"),
        ("https://127.1", GOOD_TOKEN, "unusual"),
        ("https://chat.example.org", f"{GOOD_TOKEN}x", "26"),
        ("https://chat.example.org", GOOD_TOKEN.upper(), "26"),
        ("https://chat.example.org", "", "26"),
    ],
)
def test_t30_addresses_and_tokens_that_cannot_be(url: str, token: str, hint: str) -> None:
    """Trap 30; what was pasted is a secret even when it is wrong."""
    with pytest.raises(InvalidError) as caught:
        parse_server(url, token)
    assert hint in caught.value.detail
    told = "".join(traceback.format_exception(caught.value)[-1:]) + repr(caught.value)
    assert GOOD_TOKEN not in told
    assert GOOD_TOKEN.upper() not in told


def test_an_address_with_a_path_or_the_interface_in_it() -> None:
    for url in (
        "https://chat.example.org/mm",
        "https://chat.example.org/mm/api/v4/",
        " https://chat.example.org/mm/ ",
    ):
        server = parse_server(url, GOOD_TOKEN)
        assert server.address == "https://chat.example.org/mm"
        assert unseal_server(server.sealed(), allow_plain_http=False).address == server.address
        assert GOOD_TOKEN not in repr(server)
    for sealed in ("", "[]", "{}", '{"url": 1, "token": 2}', "[" * 100_000):
        with pytest.raises(InvalidError):
            unseal_server(sealed, allow_plain_http=False)


async def test_t7_a_proxy_whose_clock_is_ahead_hides_no_post(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 7: the ``Date`` of the answer may be a proxy's, the posts' times are the server's."""
    server.set(clock_offset_seconds=7200.0)
    since = await where(client, server)
    server.set(clock_offset_seconds=0.0)
    made = await post(client, server)
    assert (await look(client, server, since)).remote_id == made.remote_id


def test_the_mark_keeps_the_servers_time_where_it_is_behind_ours(server: RunningMattermost) -> None:
    async def ask() -> timedelta:
        client = OutboundClient(
            Settings(allowed_private_networks=(ip_network("127.0.0.0/8"),), allow_plain_http=True)
        )
        server.set(clock_offset_seconds=-7200.0)
        at = (await where(client, server)).time
        server.set(clock_offset_seconds=0.0)
        return (await where(client, server)).time - at

    assert abs(asyncio.run(ask()) - timedelta(hours=2)) < timedelta(minutes=1)


def put_by_somebody_else(server: RunningMattermost, message: str) -> Post:
    state = server.state
    now = state.now_ms()
    made = Post(state.reports.id, state.owner.id, message, message, now, update_at=now)
    state.posts.append(made)
    return made
