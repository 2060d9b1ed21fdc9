"""Connector, IMAP server and platform together, no stub between them."""

import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.serving import Server
from tests.api.support import Keys, bearer
from tests.edge.connecting import Customer, customer, until
from tests.edge.dovecot import PASSWORD, Dovecot, mail
from tests.edge.ingesting import CONNECTOR

pytestmark = pytest.mark.slow


class Platform:
    """A running platform with one tenant, and what it has of the connector."""

    def __init__(self, server: Server, key: str, reader: str) -> None:
        self.server = server
        self.key = key
        self._headers = bearer(reader)

    def signals(self, kind: str = "email.inbound.received") -> list[dict[str, Any]]:
        """Every signal of a type, oldest first."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            given: dict[str, str | int] = {
                "type": kind,
                "limit": 100,
                **({"cursor": cursor} if cursor else {}),
            }
            answer = httpx.get(
                f"{self.server.url}/api/v1/signals", params=given, headers=self._headers, timeout=30
            ).json()
            found += answer["items"]
            cursor = answer["next_cursor"]
            if cursor is None:
                return found[::-1]

    def subjects(self) -> list[str]:
        """The subjects that were told, sorted."""
        return sorted(one["data"]["message"]["subject"] for one in self.signals())


@pytest.fixture
async def platform(
    served: Server, settings: Settings, database: Database, tenant: Tenant
) -> Platform:
    keys = Keys(database, settings)
    key = await keys.connector(tenant, CONNECTOR)
    return Platform(served, key, await keys.user(tenant))


@pytest.fixture
def home(tmp_path: Path, bridge: Dovecot, platform: Platform) -> Customer:
    return customer(tmp_path / "home", bridge, platform.server.url, platform.key)


def started(home: Customer, platform: Platform) -> None:
    until(lambda: platform.signals("connector.heartbeat"), "a heartbeat")


def now() -> datetime:
    return datetime.now(UTC)


async def off_loop(work: Callable[[], None]) -> None:
    """Run blocking work beside the event loop that the fixtures live in."""
    await asyncio.to_thread(work)


async def test_from_the_first_start_to_the_end(
    home: Customer, platform: Platform, bridge: Dovecot, tenant: Tenant
) -> None:
    def work() -> None:
        bridge.deliver(mail("old"), at=now() - timedelta(days=9))
        code, told = home.command("doctor")
        assert code == 0, told
        with home.running() as process:
            started(home, platform)
            bridge.deliver(mail(1), mail(2))
            until(lambda: len(platform.signals()) == 2, "two signals")
            (first, _) = platform.signals()
            uid = first["data"]["message"]["imap_uid"]
            key = f"email_in:{tenant.slug}:{CONNECTOR}:INBOX:{uid}:"
            assert first["dedupe_key"].startswith(key)
            code, told = home.command("status")
            assert (code, told["ok"], told["process"]) == (0, True, process.pid), told
            code, refused = home.command("run")
            assert (code, refused["error"]["code"]) == (4, "already_running")
            code, explained = home.command("explain-payload", str(uid))
            assert code == 0
            assert explained["signal"]["data"] == first["data"]
            assert explained["signal"]["dedupe_key"] == first["dedupe_key"]
            code, audited = home.command("audit", "--since", "2020-01-01")
            assert (code, audited["counts"]) == (0, {"told": 2, "old": 1})
            code, _ = home.command("backfill", "--since", "2020-01-01")
            assert code == 0
            # It begins with the next look, which a new connection brings sooner than IDLE's renewal.
            bridge.kick()
            until(
                lambda: platform.subjects() == ["Mail 1", "Mail 2", "Mail old"], "the backfill", 90
            )
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
            assert time.monotonic() - began < 6
        code, told = home.command("status")
        assert (code, told["problems"][0]["code"]) == (1, "not_running")

    await off_loop(work)
    (beat, *_) = platform.signals("connector.heartbeat")
    assert beat["data"]["version"]
    assert beat["data"]["problems"] == []
    assert {"uptime_seconds", "last_poll_at", "last_post_at", "queue"} <= beat["data"].keys()
    lines = [json.loads(line) for line in home.log.splitlines()]
    assert all(line["connector_id"] == CONNECTOR for line in lines)
    for secret in (PASSWORD, platform.key, "Mail 1"):
        assert secret not in home.log


async def test_bridge_and_platform_go_and_come_and_nothing_is_lost_or_told_twice(
    home: Customer, platform: Platform, bridge: Dovecot
) -> None:
    def work() -> None:
        with home.running() as process:
            started(home, platform)
            bridge.deliver(mail(1))
            until(lambda: platform.subjects() == ["Mail 1"], "the first")
            bridge.kick()
            bridge.deliver(mail(2))
            process.kill()
            process.wait(15)
        bridge.deliver(mail(3))
        bridge.renumber()
        with home.running():
            until(lambda: len(platform.signals()) >= 3, "the others", 90)
            bridge.deliver(mail(4))
            until(lambda: len(platform.signals()) >= 4, "the last", 90)
            (notice,) = [
                one
                for one in platform.signals("connector.error")
                if one["data"]["code"] == "folder_renumbered"
            ]
            assert notice["data"]["folder"] == "INBOX"

    await off_loop(work)
    assert platform.subjects() == ["Mail 1", "Mail 2", "Mail 3", "Mail 4"]


async def test_trap_25_with_the_listener_closed_it_says_so_and_goes_on_when_it_is_back(
    home: Customer, platform: Platform, bridge: Dovecot
) -> None:
    def work() -> None:
        with home.running():
            started(home, platform)
            bridge.stop()
            until(lambda: home.command("status")[0] == 1, "the fault in status")
            _, told = home.command("status")
            assert [one["code"] for one in told["problems"]] == ["bridge_unreachable"]
            assert told["problems"][0]["kind"] == "network"
            _, checks = home.command("doctor")
            bad = [one["name"] for one in checks["checks"] if one["state"] == "bad"]
            assert bad == ["bridge port"]
            bridge.start()
            until(lambda: home.command("status")[0] == 0, "its end in status", 90)
            bridge.deliver(mail(1))
            until(lambda: platform.subjects() == ["Mail 1"], "the mail")

    await off_loop(work)
    errors = [one["data"]["code"] for one in platform.signals("connector.error")]
    assert errors.count("bridge_unreachable") == 1


async def test_with_bridge_down_from_the_start_the_platform_is_told(
    tmp_path: Path, platform: Platform, bridge: Dovecot
) -> None:
    home = customer(
        tmp_path / "home", bridge, platform.server.url, platform.key, bridge__imap__port=9
    )

    def work() -> None:
        with home.running():
            beat = until(
                lambda: next(
                    (
                        one
                        for one in platform.signals("connector.heartbeat")
                        if one["data"]["problems"]
                    ),
                    None,
                ),
                "a heartbeat that tells of it",
            )
            (problem,) = beat["data"]["problems"]
            assert (problem["place"], problem["code"]) == ("bridge", "bridge_unreachable")

    await off_loop(work)


async def test_a_platform_that_is_down_at_the_first_start_costs_no_mail(
    tmp_path: Path, platform: Platform, bridge: Dovecot, settings: Settings
) -> None:
    home = customer(tmp_path / "home", bridge, "http://127.0.0.1:9", platform.key)

    def work() -> None:
        bridge.deliver(mail("old"), at=now() - timedelta(days=9))
        bridge.deliver(mail("just before"), at=now() - timedelta(seconds=30))
        with home.running():
            until(lambda: "mailbox open" in home.log, "the mailbox")
            bridge.deliver(mail(1))
            _, told = home.command("status")
            assert [one["code"] for one in told["problems"]] == ["platform_unreachable"]
        text = home.profile.read_text().replace("http://127.0.0.1:9", platform.server.url)
        home.profile.write_text(text)
        with home.running():
            until(lambda: platform.subjects() == ["Mail 1"], "the mail")

    await off_loop(work)


async def test_a_key_of_another_connector_is_refused_with_words(
    tmp_path: Path,
    platform: Platform,
    bridge: Dovecot,
    settings: Settings,
    database: Database,
    tenant: Tenant,
) -> None:
    key = await Keys(database, settings).connector(tenant, "somebody-else")
    home = customer(tmp_path / "home", bridge, platform.server.url, key)

    def work() -> None:
        code, told = home.command("run")
        assert (code, told["error"]["kind"]) == (2, "auth")
        assert "another connector" in told["error"]["message"]
        _, checks = home.command("doctor")
        assert [one["name"] for one in checks["checks"] if one["state"] == "bad"] == ["key"]

    await off_loop(work)


async def test_refused_signals_are_listed_retried_and_dropped(
    home: Customer, platform: Platform
) -> None:
    def work() -> None:
        code, told = home.command("queue", "list")
        assert (code, told["waiting"]["signals"]) == (0, 0)
        with sqlite3.connect(home.state / "connector.sqlite3") as connection:
            for key in ("a", "b"):
                connection.execute(
                    "INSERT INTO dead_letters (dedupe_key, type, body, bytes, enqueued_at, refused_at,"
                    " problem, detail) VALUES (?, 't.t', '{}', 2, 1, 2, 'invalid', 'why')",
                    (key,),
                )
        connection.close()
        code, told = home.command("queue", "list")
        first, _ = told["dead_letters"]
        assert (first["problem"], first["refused_at"]) == ("invalid", "1970-01-01T00:00:02Z")
        _, checks = home.command("doctor")
        assert [one["name"] for one in checks["checks"] if one["state"] == "bad"] == ["queue"]
        assert home.command("queue", "retry", str(first["seq"])) == (0, {"ok": True, "signals": 1})
        assert home.command("queue", "retry", "999") == (2, {"ok": False, "signals": 0})
        assert home.command("queue", "drop", "--all") == (0, {"ok": True, "signals": 1})
        code, told = home.command("queue", "list")
        assert (told["waiting"]["signals"], told["dead_letters"]) == (1, [])

    await off_loop(work)


async def test_secrets_are_stored_from_standard_input_and_never_shown(
    home: Customer, platform: Platform
) -> None:
    def work() -> None:
        assert home.command("secrets", "remove", "api-key")[1]["removed_from"] == ["encrypted file"]
        code, told = home.command("secrets", "list")
        assert (code, told["secrets"]) == (
            1,
            {"bridge-password": "encrypted file", "api-key": None},
        )
        code, told = home.command("run")
        assert (code, told["error"]["code"]) == (2, "secret")
        code, told = home.command("secrets", "set", "api-key", given=platform.key + "\n")
        assert (code, told["place"]) == (0, "encrypted file")
        assert platform.key not in json.dumps(told)
        assert home.command("secrets", "list")[0] == 0
        assert home.command("secrets", "set", "api-key", given="")[0] == 2

    await off_loop(work)


async def test_trap_41_no_secret_is_in_any_file_log_or_signal(
    home: Customer, platform: Platform, bridge: Dovecot
) -> None:
    def work() -> None:
        with home.running() as process:
            started(home, platform)
            bridge.deliver(mail(1, f"my password is {PASSWORD}"))
            until(lambda: platform.signals(), "the mail")
            arguments = Path(f"/proc/{process.pid}/cmdline")
            if arguments.exists():
                assert PASSWORD.encode() not in arguments.read_bytes()
            bridge.kick()
            time.sleep(1)
        for path in [*home.state.iterdir(), home.folder / "log"]:
            assert platform.key.encode() not in path.read_bytes(), path
        assert PASSWORD not in home.log

    await off_loop(work)
