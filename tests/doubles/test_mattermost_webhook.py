"""The stand-in's webhook against the contract: every status, both generations, every fault."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.mattermost import (
    DEFAULT_HOOK_ID,
    RunningMattermost,
    find_mentions,
    rewrite,
    running_mattermost,
)

GENERAL = "web.incoming_webhook.general.app_error"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server() -> Iterator[RunningMattermost]:
    with running_mattermost() as running:
        yield running


def post(server: RunningMattermost, payload: Any) -> httpx.Response:
    return httpx.post(server.hook_url, json=payload)


def test_success_is_exactly_200_ok_as_plain_text(server: RunningMattermost) -> None:
    reply = post(server, {"text": "hello"})
    assert (reply.status_code, reply.content) == (200, b"ok")
    assert reply.headers["content-type"] == "text/plain"
    assert len(reply.headers["x-request-id"]) == 26
    assert [p.message for p in server.posts] == ["hello"]
    assert server.posts[0].props["from_webhook"] == "true"


def test_a_get_is_200_html_for_any_id(server: RunningMattermost) -> None:
    """Trap 3."""
    for path in (f"/hooks/{server.state.hook_id}", "/hooks/none", "/hooks/a-b", "/anything"):
        reply = httpx.get(server.url + path)
        assert (reply.status_code, reply.headers["content-type"][:9]) == (200, "text/html")
    assert not server.posts


def test_an_id_with_a_dash_has_no_route(server: RunningMattermost) -> None:
    reply = httpx.post(f"{server.url}/hooks/abc-def", json={"text": "x"})
    assert (reply.status_code, reply.headers["content-type"][:9]) == (404, "text/html")


CAUSES: list[tuple[dict[str, Any], Any, int, str]] = [
    ({"webhooks_enabled": False}, {"text": ""}, 501, "web.incoming_webhook.disabled.app_error"),
    ({"hook_deleted": True}, {"text": ""}, 400, "web.incoming_webhook.text.app_error"),
    ({}, {"attachments": []}, 400, "web.incoming_webhook.text.app_error"),
    ({"hook_deleted": True}, {"text": "x", "channel": "none"}, 400,
     "web.incoming_webhook.invalid.app_error"),
    ({}, {"text": "x", "channel": "@nobody"}, 400, "web.incoming_webhook.user.app_error"),
    ({"hook_channel_locked": True}, {"text": "x", "channel": "none"}, 404,
     "web.incoming_webhook.channel.app_error"),
    ({}, {"text": "x", "channel": "old-reports"}, 404, "web.incoming_webhook.channel.app_error"),
    ({}, {"text": "x", "channel": "elsewhere"}, 404, "web.incoming_webhook.channel.app_error"),
    ({}, {"text": "x", "channel": "Town-Square"}, 404, "web.incoming_webhook.channel.app_error"),
    ({"hook_bound_channel_gone": True}, {"text": "x"}, 404,
     "app.channel.get.existing.app_error"),
    ({"hook_channel_locked": True}, {"text": "x", "channel": "town-square"}, 403,
     "web.incoming_webhook.channel_locked.app_error"),
    ({"hook_owner_missing": True}, {"text": "x"}, 403, "web.incoming_webhook.user.app_error"),
    ({"hook_owner_reads_private": False}, {"text": "x", "channel": "leads"}, 403,
     "web.incoming_webhook.permissions.app_error"),
    ({"town_square_read_only": True}, {"text": "x", "channel": "#town-square"}, 403,
     "api.post.create_post.town_square_read_only"),
    ({}, {"text": "x", "type": "system_join"}, 400, "api.context.invalid_param.app_error"),
    ({}, {"text": "x", "priority": {"requested_ack": True}}, 400,
     "api.context.invalid_param.app_error"),
    ({"fail_on_split": 1}, {"text": "x"}, 500,
     "api.post.create_webhook_post.creating.app_error"),
]  # fmt: skip


@pytest.mark.parametrize(("switches", "payload", "status", "old_id"), CAUSES)
def test_each_cause_in_both_generations(
    server: RunningMattermost, switches: dict[str, Any], payload: Any, status: int, old_id: str
) -> None:
    """Traps 1 and 12: the current generation says one id and repeats the hook's id."""
    server.set(**switches, generation="old")
    old = post(server, payload)
    assert (old.status_code, old.json()["id"]) == (status, old_id)
    assert old.headers["content-type"] == "application/json"
    assert server.state.hook_id not in old.text
    server.set(generation="new")
    new = post(server, payload)
    assert (new.status_code, new.json()["id"]) == (status, GENERAL)
    assert server.state.hook_id in new.json()["message"]
    assert new.json()["detailed_error"] == ""
    server.set(developer_mode=True)
    assert old_id in post(server, payload).json()["detailed_error"]
    assert not server.posts


def test_bad_json_and_raw_newlines(server: RunningMattermost) -> None:
    """A raw newline in a text passes at the second try; elsewhere it is an error."""
    assert httpx.post(server.hook_url, content=b'{"text": "a\nb\tc"}').status_code == 200
    assert server.posts[-1].message == "a\nb\tc"
    for body in (b"", b"[]", b'{"text": 1}', b'{"channel": "a\nb", "text": "x"}', b"{"):
        reply = httpx.post(server.hook_url, content=body, headers=JSON)
        assert reply.status_code == 400
        assert reply.json()["id"] == "web.incoming_webhook.decode.app_error"


def test_forms(server: RunningMattermost) -> None:
    form = {"payload": '{"text": "form"}'}
    assert httpx.post(server.hook_url, data=form).status_code == 200
    parts = {"text": (None, "parts"), "channel": (None, "town-square")}
    assert httpx.post(server.hook_url, files=parts).status_code == 200
    assert httpx.post(server.hook_url, data={"other": "x"}).status_code == 400
    bad = httpx.post(server.hook_url, content=b"{}", headers={"Content-Type": "a/b/c ;;"})
    assert bad.json()["id"] == "web.incoming_webhook.media_type.app_error"
    assert [p.message for p in server.posts] == ["form", "parts"]


def test_too_large_is_413(server: RunningMattermost) -> None:
    reply = post(server, {"text": "x" * 301_000})
    assert (reply.status_code, reply.json()["id"]) == (
        413,
        "api.context.request_body_too_large.app_error",
    )


def test_a_long_text_is_split_without_a_word(server: RunningMattermost) -> None:
    """Trap 14: the limit is 16,383 runes; attachments go to the last split."""
    text = "🦊" * 16_384
    assert post(server, {"text": text, "attachments": [{"text": "last"}]}).status_code == 200
    assert [len(p.message) for p in server.posts] == [16_383, 1]
    assert ["attachments" in p.props for p in server.posts] == [False, True]


def test_the_failing_second_split_leaves_the_first(server: RunningMattermost) -> None:
    server.set(fail_on_split=2)
    assert post(server, {"text": "x" * 20_000}).status_code == 500
    assert len(server.posts) == 1


def test_overrides_are_ignored_unless_allowed(server: RunningMattermost) -> None:
    """Trap 33."""
    wanted = {"text": "x", "username": "fleet", "icon_url": "https://example.org/i.png"}
    assert post(server, wanted).status_code == 200
    assert "override_username" not in server.posts[-1].props
    server.set(username_override=True, icon_override=True)
    post(server, wanted)
    assert server.posts[-1].props["override_username"] == "fleet"
    post(server, {"text": "x"})
    assert server.posts[-1].props["override_username"] == "webhook"


def test_rate_limit_is_plain_text_before_the_handler(server: RunningMattermost) -> None:
    server.set(rate_limited=True, retry_after_seconds=3, hook_deleted=True)
    reply = post(server, {"text": "x"})
    assert (reply.status_code, reply.text) == (429, "limit exceeded\n")
    assert reply.headers["content-type"] == "text/plain"
    assert (reply.headers["retry-after"], reply.headers["x-ratelimit-reset"]) == ("3", "3")


def test_outside_the_subpath_is_a_redirect_to_a_false_success(server: RunningMattermost) -> None:
    """Trap 4."""
    server.set(subpath="/mm")
    outside = f"{server.url}/hooks/{server.state.hook_id}"
    assert httpx.post(outside, json={"text": "x"}).status_code == 302
    followed = httpx.post(outside, json={"text": "x"}, follow_redirects=True)
    assert (followed.status_code, followed.headers["content-type"][:9]) == (200, "text/html")
    assert not server.posts
    assert post(server, {"text": "x"}).text == "ok"


@pytest.mark.parametrize("fault", ["drop_after_save", "reset_after_save", "drop_before_save"])
def test_broken_connections(server: RunningMattermost, fault: str) -> None:
    """Trap 6: the client cannot tell whether the post was saved."""
    server.set(fault=fault, fault_requests=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        post(server, {"text": "x"})
    assert len(server.posts) == (0 if fault == "drop_before_save" else 1)
    assert post(server, {"text": "again"}).text == "ok"


def test_stall_and_error_after_save(server: RunningMattermost) -> None:
    server.set(fault="stall_after_save")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.hook_url, json={"text": "x"}, timeout=0.2)
    server.set(fault="error_after_save")
    assert post(server, {"text": "x"}).status_code == 500
    assert len(server.posts) == 2


def test_a_proxy_answers_with_pages(server: RunningMattermost) -> None:
    for name, status in (("html_200", 200), ("html_404", 404), ("html_502", 502)):
        server.set(proxy=name)
        reply = post(server, {"text": "x"})
        assert (reply.status_code, reply.headers["content-type"][:9]) == (status, "text/html")
    server.set(proxy="redirect_to_https")
    assert post(server, {"text": "x"}).headers["location"].startswith("https://")
    assert not server.posts


def test_hardened_mode_hides_5xx(server: RunningMattermost) -> None:
    server.set(hardened_mode=True, webhooks_enabled=False)
    reply = post(server, {"text": "x"})
    assert (reply.status_code, reply.json()["id"]) == (500, "")


REWRITTEN = [
    ("<!channel> <!here> <!all>", "@channel @here @all"),
    ("<https://a.example|name>", "[name](https://a.example)"),
    ("Map<K|V>", "Map[V](K)"),
    ("<@nobody1>", "<@nobody1>"),
]


@pytest.mark.parametrize(("given", "stored"), REWRITTEN)
def test_slack_notation_is_rewritten(server: RunningMattermost, given: str, stored: str) -> None:
    post(server, {"text": given})
    assert (server.posts[0].message, server.posts[0].original) == (stored, given)


def test_a_user_id_becomes_a_name_and_a_ping(server: RunningMattermost) -> None:
    post(server, {"text": f"<@{server.state.owner.id}>", "silent": True})
    assert server.posts[0].message == "@hook-owner"
    assert (server.posts[0].mentions.users, server.posts[0].silent) == (("@hook-owner",), True)
    server.set(silent_supported=False)
    post(server, {"text": "x", "silent": True})
    assert not server.posts[-1].silent


def test_the_old_link_rule_spans_lines_and_the_new_one_does_not() -> None:
    assert rewrite("a<b\n|c\n>", {}, "old") == "a[c\n](b\n)"
    assert rewrite("a<b\n|c\n>", {}, "new") == "a<b\n|c\n>"


MENTIONS = [
    ("@channel", ["@channel"]),
    ("x.@all", ["@all"]),
    ("_@here_", ["@here"]),
    ("**@HERE!**", ["@here"]),
    ("@ann.", ["@ann"]),
    ("`@channel`", []),
    ("```\n@channel\n```", []),
    ("    @channel", []),
    ("@\u200bchannel", []),
    ("&#64;channel", ["@channel"]),
    (r"\@channel", ["@channel"]),
    ("[@all](https://example.org)", ["@all"]),
    ("| @here |", ["@here"]),
    ("# @all", ["@all"]),
    ("@allergic", []),
    (":@here:", []),
    ("mail@here", []),
]


@pytest.mark.parametrize(("text", "pings"), MENTIONS)
def test_mentions(text: str, pings: list[str]) -> None:
    """Contract A4."""
    assert find_mentions([text], ["ann"]).pings == pings


def test_attachments_are_scanned_in_text_and_pretext_only(server: RunningMattermost) -> None:
    hidden = {"title": "@all", "footer": "@all", "fallback": "@all", "fields": [{"value": "@all"}]}
    post(server, {"attachments": [hidden | {"text": "quiet"}]})
    assert server.posts[-1].mentions.pings == []
    post(server, {"attachments": [{"text": "@here", "pretext": "@all"}]})
    assert server.posts[-1].mentions.pings == ["@all", "@here"]


def test_the_page_escapes_and_renders(server: RunningMattermost) -> None:
    text = "## Report\n\n| a | b |\n|---|--:|\n| `x` | **2** |\n\n<script>alert(1)</script>\n"
    post(server, {"text": text + "![i](https://example.org/p.png) [x](javascript:alert(1))"})
    reply = httpx.get(server.url)
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for part in ("<h2>Report</h2>", "<table>", "<code>x</code>", "<strong>2</strong>"):
        assert part in reply.text
    for part in ("<script", "<img", 'href="javascript'):
        assert part not in reply.text


def test_switches_and_posts_over_http(server: RunningMattermost) -> None:
    reply = httpx.post(f"{server.url}/_double/behaviour", json={"webhooks_enabled": False})
    assert reply.json()["webhooks_enabled"] is False
    assert post(server, {"text": "x"}).status_code == 501
    for wrong in ({"no_such": 1}, {"webhooks_enabled": "no"}, {"fault": "sulk"}, [1]):
        assert httpx.post(f"{server.url}/_double/behaviour", json=wrong).status_code == 422
    httpx.post(f"{server.url}/_double/behaviour", json={"webhooks_enabled": True})
    post(server, {"text": "@here"})
    found = httpx.get(f"{server.url}/_double/posts").json()
    assert [(p["message"], p["channel"], p["mentions"]) for p in found] == [
        ("@here", "fleet-reports", ["@here"])
    ]
    assert httpx.post(f"{server.url}/_double/reset").status_code == 204
    assert httpx.get(f"{server.url}/_double/posts").json() == []


def test_it_runs_as_a_process_and_stops_on_sigterm() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.doubles.mattermost", "--port", "0"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            hook = re.search(r"http://\S+/hooks/\S+", lines[1])
            assert hook is not None
            assert hook[0].endswith(DEFAULT_HOOK_ID)
            # The line is printed once the port listens; the loop answers as soon as it runs.
            assert httpx.post(hook[0], json={"text": "x"}).text == "ok"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
