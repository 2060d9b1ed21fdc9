"""Fetching directives and reporting them, against a platform that decides what becomes of each."""

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import httpx
import pytest
from fleetprompt_edge.errors import PlatformDownError
from fleetprompt_edge.running.errands import Errands
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.sending.smtp import Delivery
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Leased, Platform

from tests.edge.sending import Office, asked

DOWN = Delivery("not_taken", "network", "Bridge's SMTP server cannot be reached.")


class Desk:
    """The platform's side: directives to hand out, and how it answers reports."""

    def __init__(self, store: Store) -> None:
        self.office = Office(store)
        self.waiting: list[Leased] = []
        self.becomes = "pending"
        self.answer_lost = False
        self.reports: list[dict[str, Any]] = []
        self.stop = Event()
        self.down = 0
        self.waits: list[str] = []
        self.platform = Platform(
            "https://fleetprompt.example",
            "fp_conn_key",
            self.office.clock,
            transport=httpx.MockTransport(self._answer),
        )
        self.errands = Errands(
            store,
            self.platform,
            self.office.sender,
            Health(store, self.office.clock),
            self.office.clock,
            self.stop,
            Event(),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            self.waits.append(request.url.params["wait"])
            if len(self.waits) == 5:
                self.stop.set()
            if len(self.waits) == self.down:
                raise httpx.ConnectError("down")
            found, self.waiting = self.waiting[:1], self.waiting[1:]
            return httpx.Response(200, json=[one._asdict() for one in found])
        directive_id = request.url.path.split("/")[-2]
        if request.url.path.endswith("/ack"):
            return httpx.Response(200, json={"lease_expires_at": "2026-01-06T09:01:00Z"})
        said = json.loads(request.content)
        self.reports.append(said)
        if self.answer_lost:
            self.answer_lost = False
            raise httpx.ReadError("lost on its way")
        state = said["outcome"] if said["outcome"] != "retry" else self.becomes
        return httpx.Response(200, json={"directive_id": directive_id, "state": state})

    def work(self, leased: Leased) -> None:
        """One directive, fetched, worked off and reported."""
        self.waiting = [leased]
        self.errands.turn(0)

    def told(self) -> list[dict[str, Any]]:
        """The outcome signals that wait."""
        with self.office.store.transaction():
            waiting = self.office.store.queue.first(1000, 1 << 30)
        return [json.loads(one.body) for one in waiting if one.type.startswith("email.outbound.")]

    def kinds(self) -> list[str]:
        """Their types, without what all have in common."""
        return [one["type"].rpartition(".")[2] for one in self.told()]


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    made = Desk(store)
    yield made
    made.platform.close()


def test_while_another_attempt_is_to_come_nothing_is_told_as_failed(desk: Desk) -> None:
    desk.office.bridge.script = [DOWN]
    desk.work(asked())
    assert [one["outcome"] for one in desk.reports] == ["retry"]
    assert desk.kinds() == ["requested"]


def test_when_the_platform_spends_the_last_attempt_the_mail_is_told_as_failed(desk: Desk) -> None:
    desk.office.bridge.script = [DOWN]
    desk.becomes = "failed"
    desk.work(asked())
    assert desk.kinds() == ["requested", "failed"]
    failed = desk.told()[1]
    assert failed["data"]["error_kind"] == "network"
    assert failed["data"]["recipients"] == 1
    assert failed["metadata"]["correlation_id"] == "order:1"
    assert failed["subject_id"] == asked().id


def test_trap_5_a_last_report_whose_answer_is_lost_is_told_once_all_the_same(desk: Desk) -> None:
    desk.office.bridge.script = [DOWN]
    desk.becomes, desk.answer_lost = "failed", True
    desk.work(asked())
    assert desk.kinds() == ["requested"]
    desk.errands.turn(0)
    desk.errands.turn(0)
    assert len(desk.reports) == 2
    assert desk.kinds() == ["requested", "failed"]


def test_an_attempt_that_a_person_asks_for_later_is_told_as_what_it_becomes(desk: Desk) -> None:
    desk.office.bridge.script = [DOWN]
    desk.becomes = "failed"
    desk.work(asked())
    desk.work(asked(1, 2))
    assert desk.kinds() == ["requested", "failed", "sent"]
    assert len(desk.office.bridge.sent) == 1
    keys = [one["dedupe_key"] for one in desk.told()]
    assert len(set(keys)) == 3


def test_what_the_connector_itself_told_as_failed_is_told_once(desk: Desk) -> None:
    desk.work(asked(to=[]))
    assert [one["outcome"] for one in desk.reports] == ["failed"]
    assert desk.kinds() == ["failed"]


def test_a_report_waits_until_the_platform_has_it(desk: Desk) -> None:
    desk.answer_lost = True
    desk.work(asked())
    with desk.office.store.transaction():
        assert len(desk.office.store.sends.reports()) == 1
    desk.answer_lost = True
    with pytest.raises(PlatformDownError):
        desk.errands.report()
    desk.errands.report()
    with desk.office.store.transaction():
        assert desk.office.store.sends.reports() == []
    assert {one["outcome"] for one in desk.reports} == {"succeeded"}


def test_after_a_start_and_a_failure_it_is_known_at_once_whether_all_is_well(store: Store) -> None:
    desk = Desk(store)
    desk.down = 3
    desk.errands.run()
    assert desk.waits == ["0", "25", "25", "0", "25"]
