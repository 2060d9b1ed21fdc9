"""A picture beside a post: it goes along where the server takes it, and never stands in the post's way."""

import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from mattermostautodriver import TypedDriver

from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.ledger import Mark
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.mattermost import (
    Attachment,
    BotWay,
    Server,
    WebhookMessage,
    check_token,
    parse_server,
)
from fleetprompt.outbound.transports.mattermost.files import upload
from fleetprompt.settings import Settings
from tests.doubles.mattermost import Behaviour, RunningMattermost, running_mattermost

TEAM, CHANNEL, KEY = "operations", "fleet-reports", "fleetprompt:0190"
PICTURE = Attachment("Signals above, errors below.png", b"\x89PNG\r\n\x1a\n--\r\n\0")


@pytest.fixture(scope="module")
def running() -> Iterator[RunningMattermost]:
    with running_mattermost() as one:
        yield one


@pytest.fixture
def server(running: RunningMattermost) -> RunningMattermost:
    """The module's server, as on its first day."""
    running.state.behaviour = Behaviour()
    running.state.reset()
    return running


@pytest.fixture(scope="module")
def client() -> OutboundClient:
    return OutboundClient(
        Settings(allowed_private_networks=(ip_network("127.0.0.0/8"),), allow_plain_http=True)
    )


def as_bot(server: RunningMattermost) -> Server:
    return parse_server(server.base_url, server.state.bot_token, allow_plain_http=True)


def way_of(client: OutboundClient, server: RunningMattermost) -> BotWay:
    return BotWay(client, as_bot(server), TEAM, CHANNEL, WebhookMessage("hello"), PICTURE)


async def sent(way: BotWay) -> Outcome:
    assert isinstance(await way.prepare(), Mark)
    return await way.send(KEY, time.monotonic() + 10)


async def test_the_picture_goes_along_and_an_independent_client_gets_it(
    client: OutboundClient, server: RunningMattermost
) -> None:
    way = way_of(client, server)
    outcome = await sent(way)
    options = {"scheme": "http", "url": "127.0.0.1", "port": server.port, "max_retries": 0}
    with TypedDriver(options | {"token": server.state.bot_token}) as driver:
        driver.login()
        seen = driver.posts.get_post(outcome.remote_id)
    (file,) = server.state.files.values()
    assert (seen["file_ids"], file.post_id, way.left_out) == ([file.id], outcome.remote_id, None)
    assert (file.name, file.content) == (PICTURE.name, PICTURE.content)


# switches, uploads that the server saw, words of the reason
WITHOUT: list[tuple[dict[str, Any], int, str]] = [
    ({"may_upload": False}, 1, "upload_file"),
    ({"files_enabled": False}, 1, "switched off"),
    ({"files_enabled": False, "generation": "old"}, 1, "switched off"),
    ({"max_file_bytes": 3}, 1, "larger"),
    ({"upload_fault": "drop_before_save"}, 2, "lost"),
    ({"upload_fault": "drop_after_save"}, 2, "lost"),
    ({"upload_fault": "error_after_save"}, 2, "500"),
    ({"upload_fault": "endless_body"}, 2, "not the one"),
]


@pytest.mark.parametrize(("switches", "uploads", "words"), WITHOUT)
async def test_whatever_becomes_of_the_upload_the_post_is_made_once(
    client: OutboundClient,
    server: RunningMattermost,
    switches: dict[str, Any],
    uploads: int,
    words: str,
) -> None:
    server.set(**switches)
    way = way_of(client, server)
    outcome = await sent(way)
    (post,) = server.posts
    assert (outcome.state, outcome.remote_id, post.file_ids) == ("posted", post.id, [])
    assert words in (way.left_out or "")
    assert [r.path for r in server.requests].count("/api/v4/files") == uploads


async def test_an_upload_whose_answer_is_lost_is_repeated_and_one_file_is_used(
    client: OutboundClient, server: RunningMattermost
) -> None:
    server.set(upload_fault="reset_after_save", upload_fault_requests=1)
    await sent(way_of(client, server))
    (post,) = server.posts
    assert [file.post_id for file in server.state.files.values()] == ["", post.id]


async def test_a_post_that_is_refused_for_its_file_is_posted_without_it(
    client: OutboundClient, server: RunningMattermost
) -> None:
    way = way_of(client, server)
    await way.prepare()
    server.set(may_upload=False)
    outcome = await way.send(KEY, time.monotonic() + 10)
    (post,) = server.posts
    assert (outcome.remote_id, post.file_ids) == (post.id, [])
    assert "refuses" in (way.left_out or "")


async def test_another_attempt_uploads_again_and_the_same_key_is_still_one_post(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """Trap 18: the attempt before died after its post."""
    first = await sent(way_of(client, server))
    again = await sent(way_of(client, server))
    (post,) = server.posts
    assert first.remote_id == again.remote_id == post.id
    assert sorted(file.post_id for file in server.state.files.values()) == ["", post.id]


async def test_a_file_of_somebody_else_or_of_another_channel_is_not_taken(
    client: OutboundClient, server: RunningMattermost
) -> None:
    """What the stand-in must not let pass."""
    state = server.state
    elsewhere = await upload(client, as_bot(server), state.town_square.id, PICTURE)
    person = parse_server(server.base_url, state.owner_token, allow_plain_http=True)
    another = await upload(client, person, state.reports.id, PICTURE)
    assert isinstance(elsewhere, str)
    assert isinstance(another, str)
    options = {"scheme": "http", "url": "127.0.0.1", "port": server.port, "max_retries": 0}
    with TypedDriver(options | {"token": state.bot_token}) as driver:
        driver.login()
        made = driver.posts.create_post(
            channel_id=state.reports.id, message="x", file_ids=[elsewhere, another, "z" * 26]
        )
    assert made["file_ids"] == []


@pytest.mark.parametrize(
    ("switches", "attaches", "told"),
    [
        ({}, True, False),
        ({"may_upload": False}, True, True),
        ({"files_enabled": False}, True, True),
        ({"may_upload": False}, False, False),
    ],
)
async def test_the_check_says_that_a_picture_may_not_be_attached_and_uploads_nothing(
    client: OutboundClient,
    server: RunningMattermost,
    switches: dict[str, Any],
    attaches: bool,
    told: bool,
) -> None:
    server.set(**switches)
    check = await check_token(client, as_bot(server), TEAM, CHANNEL, attaches=attaches)
    assert check.ok, "digests can be posted all the same"
    assert ("upload_file" in check.message) == told
    assert {r.method for r in server.requests} == {"GET"}
    assert not server.state.files


def test_the_upload_is_the_same_bytes_for_the_same_picture_and_a_name_cannot_break_out() -> None:
    assert PICTURE.form("c" * 26) == PICTURE.form("c" * 26)
    for name in ('a".png', "a\r\nb.png", "", "ä.png"):
        with pytest.raises(ValueError, match="not a name"):
            Attachment(name, b"")
