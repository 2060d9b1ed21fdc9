"""A connector's threads together, in this process: a real IMAP server, a platform that answers as told."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.errors import PlatformAuthError
from fleetprompt_edge.profile import Mailbox, Profile
from fleetprompt_edge.running import connector as running
from fleetprompt_edge.running.connector import Connector
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Platform

from tests.edge.connecting import until
from tests.edge.dovecot import Dovecot, mail
from tests.edge.ingesting import profile

OURS, THEIRS = str(uuid4()), str(uuid4())
HEADERS = ["From", "To", "Subject", "Message-ID", "Date"]


class Answering:
    """A platform: whose the key is, and what it was given."""

    def __init__(self) -> None:
        self.up = True
        self.organization_id = OURS
        self.given: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            raise httpx.ConnectError("down")
        if request.url.path == "/api/v1/me":
            tenant = {"slug": "northwind", "id": self.organization_id}
            return httpx.Response(
                200,
                json={"tenant": tenant, "connector_id": None, "scopes": []},
                headers={"Date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}"},
            )
        lines = [json.loads(one) for one in request.content.splitlines()]
        self.given += lines
        made = [{"status": "created", "id": str(uuid4())} for _ in lines]
        return httpx.Response(200, json={"items": made})

    def subjects(self) -> list[str]:
        told = [one for one in self.given if one["type"] == "email.inbound.received"]
        return sorted(one["data"]["message"]["subject"] for one in told)


@pytest.fixture
def platform() -> Answering:
    return Answering()


@contextmanager
def at_work(
    store: Store, bridge: Dovecot, platform: Answering, made: Profile
) -> Iterator[list[BaseException]]:
    """The connector, until the block ends; what ended it, if anything did."""
    clock = SystemClock()
    client = Platform("http://127.0.0.1:9", "key", clock, transport=httpx.MockTransport(platform))
    connector = Connector(made, store, lambda: bridge.session(HEADERS), client, clock)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            connector.run()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            failures.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield failures
    finally:
        connector.stop()
        thread.join(20)
        assert not thread.is_alive()


def watching(*folders: str) -> Profile:
    return replace(profile(), mailbox=Mailbox(folders=folders, poll_interval_seconds=1, idle=False))


def codes(store: Store) -> Callable[[], list[str]]:
    def found() -> list[str]:
        with store.transaction():
            noted = store.notes.under("problem:").values()
        return [json.loads(one)["code"] for one in noted]

    return found


def test_trap_30_folders_that_come_and_go_are_watched_as_they_do(
    store: Store, bridge: Dovecot, platform: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_LIST_AGAIN", 0.3)
    now = datetime.now(UTC)
    with at_work(store, bridge, platform, watching("INBOX", "Later", "Folders/*")) as failures:
        until(
            lambda: codes(store)() == ["folder_gone"],
            "what is wrong with the one that is not there",
        )
        with bridge.client() as other:
            for name in ("Folders/a", "Later"):
                other.create_folder(name)
        bridge.deliver(mail("moved here"), folder="Later", at=now - timedelta(days=9))
        bridge.deliver(mail("late"), folder="Later")
        bridge.deliver(mail("by pattern"), folder="Folders/a")
        until(lambda: platform.subjects() == ["Mail by pattern", "Mail late"], "both mails")
        until(lambda: not codes(store)(), "that nothing is wrong any more")
        with bridge.client() as other:
            other.rename_folder("Folders/a", "Folders/b")
        bridge.deliver(mail("renamed"), folder="Folders/b")
        until(lambda: "Mail renamed" in platform.subjects(), "the mail in the renamed folder")
        until(lambda: not codes(store)(), "that the old name is missed by nobody")
    assert failures == []
    assert platform.subjects() == ["Mail by pattern", "Mail late", "Mail renamed"]


def test_a_folder_that_the_profile_does_not_name_any_more_is_no_problem_any_more(
    store: Store, bridge: Dovecot, platform: Answering
) -> None:
    with at_work(store, bridge, platform, watching("INBOX", "Mistyped")):
        until(lambda: codes(store)() == ["folder_gone"], "what is wrong")
    with at_work(store, bridge, platform, watching("INBOX")):
        until(lambda: not codes(store)(), "that nothing is wrong")


def test_nothing_leaves_with_a_key_of_another_organization_though_it_was_offline_at_the_start(
    store: Store, bridge: Dovecot, platform: Answering
) -> None:
    with at_work(store, bridge, platform, watching("INBOX")):
        until(lambda: platform.given, "the first heartbeat")
    platform.given.clear()
    platform.up, platform.organization_id = False, THEIRS
    with at_work(store, bridge, platform, watching("INBOX")) as failures:
        until(lambda: "platform_unreachable" in codes(store)(), "what is wrong")
        bridge.deliver(mail(1))
        until(lambda: store_has(store, "email.inbound.received"), "the mail in the queue")
        platform.up = True
        until(lambda: failures, "the end")
    assert isinstance(failures[0], PlatformAuthError)
    assert platform.given == []
    platform.organization_id = OURS
    with at_work(store, bridge, platform, watching("INBOX")):
        until(lambda: platform.subjects() == ["Mail 1"], "the mail")


def store_has(store: Store, kind: str) -> bool:
    with store.transaction():
        return any(one.type == kind for one in store.queue.first(100, 1 << 20))


def test_what_was_excluded_is_not_told_afterwards_once_it_is_not(
    store: Store, bridge: Dovecot, platform: Answering
) -> None:
    with bridge.client() as other:
        other.create_folder("Folders/private")
    private = replace(watching("INBOX", "Folders/*").mailbox, exclude_folders=("Folders/private",))
    made = replace(profile(), mailbox=private)
    with at_work(store, bridge, platform, made):
        until(lambda: platform.given, "the first heartbeat")
    bridge.deliver(mail("nobody's business"), folder="Folders/private")
    with at_work(store, bridge, platform, watching("INBOX", "Folders/*")):
        until(lambda: looked_at(store, "Folders/private"), "a look at the folder")
        bridge.deliver(mail("from now on"), folder="Folders/private")
        until(lambda: platform.subjects() == ["Mail from now on"], "the mail")


def looked_at(store: Store, folder: str) -> bool:
    with store.transaction():
        return folder in store.notes.under("last_poll:")
