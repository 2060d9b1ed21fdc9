"""The stand-in satisfies clients written by others, and REST keeps its sharp edges."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import apprise
import httpx
import pytest
from apprise.attachment.memory import AttachMemory
from apprise.plugins.mattermost import NotifyMattermost
from mattermostautodriver import TypedDriver
from mattermostautodriver.exceptions import NoAccessTokenProvided, NotEnoughPermissions

from tests.doubles.mattermost import RunningMattermost, running_mattermost

# Apprise imports a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")


@pytest.fixture
def server() -> Iterator[RunningMattermost]:
    with running_mattermost() as running:
        yield running


def driver(server: RunningMattermost, token: str | None = None) -> TypedDriver:
    options = {
        "scheme": "http",
        "url": "127.0.0.1",
        "port": server.port,
        "token": token or server.state.bot_token,
        "max_retries": 0,
    }
    return TypedDriver(options)


def ask(server: RunningMattermost, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {more.pop('token', server.state.bot_token)}"}
    return httpx.request(method, f"{server.url}/api/v4{path}", headers=headers, **more)


def create(server: RunningMattermost, **fields: Any) -> httpx.Response:
    body = {"channel_id": server.state.reports.id, "message": "x"} | fields
    return ask(server, "POST", "/posts", json=body)


def test_autodriver_logs_in_posts_and_reads_back(server: RunningMattermost) -> None:
    with driver(server) as client:
        assert client.login()["username"] == "fleetprompt"
        channel = client.channels.get_channel_by_name_for_team_name("operations", "fleet-reports")
        key = {"fleetprompt": {"key": "k1"}}
        made = client.posts.create_post(channel["id"], "hello", props=key, silent=True)
        found = client.posts.get_posts_for_channel(channel["id"], since=made["create_at"] - 1)
        assert found["posts"][made["id"]]["props"] == key
    assert server.posts[0].silent


def test_autodriver_sees_the_refusals(server: RunningMattermost) -> None:
    with driver(server) as client:
        client.login()
        with pytest.raises(NotEnoughPermissions):
            client.posts.create_post("a" * 26, "unknown channel")
        server.set(token_expired=True)
        with pytest.raises(NoAccessTokenProvided):
            client.login()


def notifier(url: str, monkeypatch: pytest.MonkeyPatch) -> apprise.Apprise:
    monkeypatch.setattr(NotifyMattermost, "request_rate_per_sec", 0)
    made = apprise.Apprise()
    assert made.add(url)
    return made


def test_apprise_posts_through_the_webhook(
    server: RunningMattermost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"mmost://127.0.0.1:{server.port}/{server.state.hook_id}"
    assert notifier(f"{base}?image=no", monkeypatch).notify(body="hello")
    assert [p.message for p in server.posts] == ["hello"]
    assert not notifier(f"{base}?to=missing&image=no", monkeypatch).notify(body="lost")
    assert len(server.posts) == 1


def test_apprise_posts_as_a_bot(server: RunningMattermost, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"mmost://127.0.0.1:{server.port}/{server.state.bot_token}?mode=bot&team=operations"
    attachment = AttachMemory(content=b"a,b\n1,2\n", name="report.csv")  # type: ignore[no-untyped-call]
    made = notifier(f"{url}&to=%23fleet-reports", monkeypatch)
    assert made.notify(body="with a file", attach=attachment)
    assert [len(p.file_ids) for p in server.posts] == [1]
    assert [f.content for f in server.state.files.values()] == [b"a,b\n1,2\n"]


def test_errors_of_the_rest_interface(server: RunningMattermost) -> None:
    """Trap 13 among them: an unknown channel and a foreign one look the same."""
    state = server.state
    names = "/teams/name/operations/channels/name"
    cases: list[tuple[httpx.Response, int, str]] = [
        (ask(server, "GET", "/nowhere"), 404, "api.context.404.app_error"),
        (ask(server, "GET", "/users/me", token="x"), 401, "api.context.session_expired.app_error"),
        (ask(server, "GET", f"{names}/none"), 404, "app.channel.get_by_name.missing.app_error"),
        (ask(server, "GET", f"{names}/leads"), 404, "app.channel.get_by_name.missing.app_error"),
        (ask(server, "GET", f"{names}/a.b"), 400, "api.context.invalid_url_param.app_error"),
        (create(server, channel_id="z" * 26), 403, "api.context.permissions.app_error"),
        (create(server, channel_id=state.elsewhere.id), 403, "api.context.permissions.app_error"),
        (create(server, channel_id=state.archived.id), 400,
         "api.post.create_post.can_not_post_to_deleted.error"),
        (create(server, root_id="z" * 26), 400, "api.post.create_post.root_id.app_error"),
        (create(server, message="x" * 16_384), 400,
         "model.post.is_valid.message_length.app_error"),
        (create(server, message=1), 400, "api.context.invalid_body_param.app_error"),
        (ask(server, "POST", "/posts?silent=true", token=state.owner_token,
             json={"channel_id": state.reports.id, "message": "x"}), 403,
         "api.post.create_post.silent_notification.app_error"),
    ]  # fmt: skip
    for reply, status, error_id in cases:
        assert (reply.status_code, reply.json()["id"]) == (status, error_id)
        assert reply.headers["content-type"] == "application/json"
    assert not server.posts


def test_a_cookie_beats_the_bearer_and_401_clears_it(server: RunningMattermost) -> None:
    """Trap 29."""
    stale = ask(server, "GET", "/users/me", cookies={"MMAUTHTOKEN": "stale"})
    assert stale.status_code == 401
    assert "Max-Age=0" in stale.headers["set-cookie"]
    assert "MMAUTHTOKEN" in create(server).headers["set-cookie"]


def test_trouble_during_authentication_shows_the_token(server: RunningMattermost) -> None:
    """Trap 1."""
    server.set(token_in_error=True)
    reply = ask(server, "GET", "/users/me")
    assert (reply.status_code, server.state.bot_token in reply.text) == (500, True)
    server.set(token_in_error=False, personal_tokens_enabled=False)
    assert ask(server, "GET", "/users/me").status_code == 200
    assert ask(server, "GET", "/users/me", token=server.state.owner_token).status_code == 401


def test_a_pending_id_is_one_post_for_thirty_seconds(server: RunningMattermost) -> None:
    """Trap 7: after 30 s, or on another node, the same id makes a second post."""
    first = create(server, pending_post_id="p").json()
    again = create(server, pending_post_id="p")
    assert (again.status_code, again.json()["id"]) == (201, first["id"])
    assert (first["pending_post_id"], again.json()["pending_post_id"]) == ("p", "")
    server.set(clock_offset_seconds=29)
    assert create(server, pending_post_id="p").json()["id"] == first["id"]
    server.set(clock_offset_seconds=31)
    assert create(server, pending_post_id="p").json()["id"] != first["id"]
    server.set(nodes=2)
    assert len({create(server, pending_post_id="q").json()["id"] for _ in range(2)}) == 2


def test_a_pending_id_in_flight_is_500_and_a_failed_one_is_forgotten(
    server: RunningMattermost,
) -> None:
    """Trap 8."""
    server.set(save_seconds=1.0)
    made: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: made.append(create(server, pending_post_id="p")))
    thread.start()
    time.sleep(0.3)
    twin = create(server, pending_post_id="p")
    assert (twin.status_code, twin.json()["id"]) == (
        500,
        "api.post.deduplicate_create_post.pending",
    )
    thread.join()
    assert create(server, pending_post_id="p").json()["id"] == made[0].json()["id"]
    server.set(save_seconds=0.0)
    assert create(server, pending_post_id="r", root_id="z" * 26).status_code == 400
    assert create(server, pending_post_id="r").status_code == 201


def test_reading_back(server: RunningMattermost) -> None:
    """Traps 9 and 10: deleted rows stay, a thousand rows are the most, a replica lags."""
    path = f"/channels/{server.state.reports.id}/posts"
    for number in range(1001):
        put_post(server, f"m{number}")
    capped = ask(server, "GET", path, params={"since": 1}).json()
    assert len(capped["order"]) == 1000
    paged = ask(server, "GET", path, params={"per_page": 500}).json()
    assert (len(paged["order"]), paged["has_next"]) == (200, True)
    last = server.posts[-1]
    server.state.delete_post(last.id)
    changed = ask(server, "GET", path, params={"since": last.create_at}).json()
    assert changed["posts"][last.id]["delete_at"] > 0
    server.set(replica_lag_seconds=60)
    assert ask(server, "GET", path, params={"since": 1}).json()["order"] == []


def put_post(server: RunningMattermost, message: str) -> None:
    """A post by somebody else, put straight into the channel."""
    state = server.state
    original = state.posts[-1] if state.posts else None
    if original is None:
        create(server, message=message)
        return
    now = state.now_ms()
    state.posts.append(
        type(original)(
            channel_id=original.channel_id,
            user_id=state.owner.id,
            message=message,
            original=message,
            create_at=now,
            update_at=now,
        )
    )


def test_a_bots_rights_are_seen_without_posting(server: RunningMattermost) -> None:
    member = f"/channels/{server.state.reports.id}/members/me"
    assert ask(server, "GET", member).status_code == 200
    server.set(bot_is_member=False)
    assert ask(server, "GET", member).json()["id"] == "app.channel.get_member.missing.app_error"
    assert create(server).status_code == 403
    server.set(bot_is_member=True, bot_may_read=False)
    listing = f"/channels/{server.state.reports.id}/posts"
    assert ask(server, "GET", listing).status_code == 403


def test_silent_and_persistent_do_not_go_together(server: RunningMattermost) -> None:
    persistent = {"priority": {"priority": "urgent", "persistent_notifications": True}}
    body = {"channel_id": server.state.reports.id, "message": "x", "metadata": persistent}
    refused = ask(server, "POST", "/posts?silent=true", json=body)
    assert (refused.status_code, refused.json()["id"]) == (
        400,
        "api.post.create_post.silent_persistent_notification.app_error",
    )
    assert ask(server, "POST", "/posts", json=body).status_code == 201


def test_autodriver_edits_searches_and_deletes(server: RunningMattermost) -> None:
    with driver(server) as client:
        client.login()
        made = client.posts.create_post(server.state.reports.id, "hello fleet")
        client.posts.patch_post(made["id"], message="hello harbour")
        found = client.posts.search_posts(server.state.team_id, "harbour", is_or_search=False)
        assert found["order"] == [made["id"]]
        client.posts.delete_post(made["id"])
        gone = client.posts.search_posts(server.state.team_id, "harbour", is_or_search=False)
    assert gone["order"] == []
    assert [bool(post.delete_at) for post in server.posts] == [True]


def test_a_dropped_request_may_be_carried_out_later(server: RunningMattermost) -> None:
    server.set(fault="save_after_drop", fault_requests=1, late_save_seconds=0.3)
    with pytest.raises(httpx.TransportError):
        create(server)
    assert not server.posts
    deadline = time.monotonic() + 10
    while not server.posts and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [post.message for post in server.posts] == ["x"]


def test_only_one_of_two_replicas_lags(server: RunningMattermost) -> None:
    create(server)
    server.set(replicas=2, replica_lag_seconds=60.0)
    path = f"/channels/{server.state.reports.id}/posts"
    seen = [len(ask(server, "GET", path, params={"since": 1}).json()["order"]) for _ in range(4)]
    assert sorted(seen) == [0, 0, 1, 1]
