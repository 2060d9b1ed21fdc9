"""Bringing signals to the platform: what counts as an answer, what is kept, what is put aside."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.errors import (
    EdgeError,
    PlatformAuthError,
    PlatformBusyError,
    PlatformDownError,
    PlatformRefusedError,
)
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.running.post import Post
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Me, Platform
from fleetprompt_edge.upload.uploader import Uploader

from tests.edge.ingesting import TurnedClock

KEY = "fp_conn_canary-key"
Handler = Callable[[httpx.Request], httpx.Response]


def items(*statuses: str) -> dict[str, Any]:
    """A batch's answer."""
    answers: list[dict[str, Any]] = [
        {"status": one, "id": str(uuid4())}
        if one != "refused"
        else {"status": one, "problem": "invalid", "detail": "no", "errors": []}
        for one in statuses
    ]
    return {"created": 0, "duplicates": 0, "refused": 0, "items": answers}


def problem(status: int, name: str, **headers: str) -> httpx.Response:
    """An RFC 9457 answer as the platform makes it."""
    content = {"type": f"https://fleetprompt.example/docs/problems#{name}", "status": status}
    return httpx.Response(
        status, headers={"content-type": "application/problem+json", **headers}, json=content
    )


class Desk:
    """An uploader on a store with a few signals; the platform answers as told."""

    def __init__(self, store: Store, answer: Handler, signals: int = 3) -> None:
        self.store = store
        self.clock = TurnedClock()
        self.requests: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return answer(request)

        self.platform = Platform(
            "https://fleetprompt.example/base",
            KEY,
            self.clock,
            transport=httpx.MockTransport(handle),
        )
        self.uploader = Uploader(store, self.platform, self.clock)
        for number in range(signals):
            self.put(number)

    def put(self, number: int, **data: Any) -> None:
        body = json.dumps({"data": {"n": number, **data}, "metadata": {}})
        with self.store.transaction():
            self.store.queue.put(str(number), "t.t", body, 1)

    def waiting(self) -> list[str]:
        with self.store.transaction():
            return [one.dedupe_key for one in self.store.queue.first(1000, 1 << 30)]

    def dead(self) -> list[tuple[str, str]]:
        with self.store.transaction():
            return [(one.dedupe_key, one.problem) for one in self.store.queue.dead_letters()]


def sent(request: httpx.Request) -> list[dict[str, Any]]:
    """The signals of a request."""
    return [json.loads(line) for line in request.content.splitlines()]


def test_what_the_platform_has_leaves_the_queue_and_the_refused_is_put_aside(store: Store) -> None:
    desk = Desk(store, lambda _: httpx.Response(207, json=items("created", "refused", "duplicate")))
    assert desk.uploader.send_some() == 3
    assert desk.waiting() == []
    assert desk.dead() == [("1", "invalid")]
    (request,) = desk.requests
    assert request.url == "https://fleetprompt.example/base/api/edge/v1/signals?partial=true"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert [one["data"]["n"] for one in sent(request)] == [0, 1, 2]
    assert desk.uploader.send_some() == 0


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>Log in to the hotel's network"),
        httpx.Response(
            200, headers={"content-type": "text/html"}, text=json.dumps(items(*["created"] * 3))
        ),
        httpx.Response(200, json=items("created", "created")),
        httpx.Response(200, json={"items": [{"status": "created", "id": "7"}] * 3}),
        httpx.Response(200, json={"items": [{"status": "ok"}] * 3}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json="fine"),
        httpx.Response(200, headers={"content-type": "application/json"}, text="{"),
        httpx.Response(204),
        httpx.Response(302, headers={"location": "https://login.example/"}),
        httpx.Response(401, text="proxy authentication"),
        httpx.Response(404, text="no such page"),
        httpx.Response(413, text="too large for this proxy"),
        httpx.Response(422, json={"error": "not ours"}),
        httpx.Response(502),
        httpx.Response(500),
    ],
    ids=lambda one: f"{one.status_code}",
)
def test_trap_35_what_is_not_the_platforms_answer_is_no_answer(
    store: Store, answer: httpx.Response
) -> None:
    desk = Desk(store, lambda _: answer)
    with pytest.raises(PlatformDownError) as caught:
        desk.uploader.send_some()
    assert caught.value.kind == "network"
    assert desk.waiting() == ["0", "1", "2"]
    assert desk.dead() == []
    # The key went to one address only.
    assert {request.url.host for request in desk.requests} == {"fleetprompt.example"}


def broken(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset")


def test_trap_34_a_connection_that_breaks_after_the_platform_accepted_ends_as_duplicates(
    store: Store,
) -> None:
    known: set[int] = set()
    answers = iter([True, False])

    def answer(request: httpx.Request) -> httpx.Response:
        numbers = [one["data"]["n"] for one in sent(request)]
        statuses = ["duplicate" if n in known else "created" for n in numbers]
        known.update(numbers)
        if next(answers):
            raise httpx.ReadError("reset")
        return httpx.Response(200, json=items(*statuses))

    desk = Desk(store, answer)
    with pytest.raises(PlatformDownError):
        desk.uploader.send_some()
    assert desk.uploader.send_some() == 3
    assert known == {0, 1, 2}
    assert desk.waiting() == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401, "unauthenticated"), PlatformAuthError),
        (problem(403, "forbidden"), PlatformAuthError),
        (problem(429, "rate-limited"), PlatformBusyError),
        (problem(503, "unavailable"), PlatformBusyError),
        (problem(409, "conflict"), PlatformRefusedError),
        (problem(404, "not-found"), PlatformRefusedError),
    ],
)
def test_trap_34_each_class_of_failure_keeps_the_signals(
    store: Store, answer: httpx.Response, kind: type[EdgeError]
) -> None:
    desk = Desk(store, lambda _: answer)
    with pytest.raises(kind) as caught:
        desk.uploader.send_some()
    assert KEY not in str(caught.value)
    assert desk.waiting() == ["0", "1", "2"]


def test_trap_34_retry_after_in_seconds_and_as_a_date(store: Store) -> None:
    clock = TurnedClock()
    at = format_datetime(clock.now() + timedelta(seconds=90), usegmt=True)
    # The machine's clock is an hour off: the date counts from the answer's own.
    theirs = format_datetime(clock.now(), usegmt=True)
    off = format_datetime(clock.now() + timedelta(seconds=3690), usegmt=True)
    off_now = format_datetime(clock.now() + timedelta(hours=1), usegmt=True)
    for headers, expected in (
        ({"retry-after": "7"}, 7),
        ({"retry-after": at, "date": theirs}, 90),
        ({"retry-after": off, "date": off_now}, 90),
        ({"retry-after": "999999999999"}, 3600),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ):
        desk = Desk(store, lambda _, given=headers: problem(503, "unavailable", **given))  # type: ignore[misc]
        with pytest.raises(PlatformBusyError) as caught:
            desk.uploader.send_some()
        assert caught.value.retry_after == expected


def test_trap_34_a_batch_that_is_refused_as_a_whole_is_halved_to_the_bad_one(store: Store) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        numbers = [one["data"]["n"] for one in sent(request)]
        if 5 in numbers:
            return problem(422, "invalid") if len(numbers) == 1 else problem(413, "too-large")
        return httpx.Response(200, json=items(*["created"] * len(numbers)))

    desk = Desk(store, answer, signals=9)
    assert desk.uploader.send_some() == 9
    assert desk.waiting() == []
    assert desk.dead() == [("5", "invalid")]


def refusing_secrets(request: httpx.Request) -> httpx.Response:
    """As the platform does: the places are named, with the signal's own first."""
    answers = []
    for index, one in enumerate(sent(request)):
        if "s3cret" in json.dumps(one) or "password" in one["data"]:
            place = f"/{index}/data/" + ("password" if "password" in one["data"] else "a~1b/1")
            answers.append(
                {
                    "status": "refused",
                    "problem": "secret-found",
                    "detail": "…",
                    "errors": [{"pointer": place, "detail": "looks like a key"}],
                }
            )
        else:
            answers.append({"status": "created", "id": str(uuid4())})
    return httpx.Response(207, json={"items": answers})


def test_what_the_platform_takes_for_a_secret_is_masked_and_sent_again(store: Store) -> None:
    desk = Desk(store, refusing_secrets, signals=1)
    desk.put(1, **{"a/b": ["x", "s3cret"]})
    desk.put(2, password="hunter2")
    for _ in range(4):
        desk.uploader.send_some()
    assert desk.waiting() == []
    assert desk.dead() == []
    last = sent(desk.requests[1])
    assert last[0]["data"] == {"n": 1, "a/b": ["x", "[redacted]"]}
    assert last[0]["metadata"]["redacted"] is True
    assert "password" not in sent(desk.requests[-1])[0]["data"]


def test_a_secret_that_cannot_be_masked_is_put_aside(store: Store) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        errors = [{"pointer": "/0/metadata/x", "detail": "looks like a key"}]
        one = {"status": "refused", "problem": "secret-found", "detail": "…", "errors": errors}
        return httpx.Response(207, json={"items": [one]})

    desk = Desk(store, answer, signals=1)
    assert desk.uploader.send_some() == 1
    assert desk.dead() == [("0", "secret-found")]


def test_whom_the_key_belongs_to_and_what_time_it_is(store: Store) -> None:
    organization = str(uuid4())
    me = {"tenant": {"id": organization, "slug": "northwind"}, "connector_id": "c", "scopes": ["a"]}
    clock = TurnedClock()
    hour_ago = format_datetime(clock.now() - timedelta(hours=1), usegmt=True)
    desk = Desk(store, lambda _: httpx.Response(200, json=me, headers={"date": hour_ago}))
    assert desk.platform.me() == Me("northwind", organization, "c", frozenset({"a"}), 3600)
    wrong: Any
    for wrong in ({}, {**me, "tenant": {"id": "7", "slug": "x"}}, [], {**me, "scopes": None}):
        desk = Desk(store, lambda _, given=wrong: httpx.Response(200, json=given))  # type: ignore[misc]
        with pytest.raises(PlatformDownError):
            desk.platform.me()


@pytest.mark.parametrize("key", ["fp_conn_…", "fp_conn_a\nb"])
def test_what_is_no_key_is_told_and_not_repeated(key: str) -> None:
    with pytest.raises(PlatformAuthError) as caught:
        Platform("https://fleetprompt.example", key, TurnedClock())
    assert key not in str(caught.value)


def backoff(clock: TurnedClock, chance: random.Random) -> Backoff:
    return Backoff(clock, first=1, longest=60, proven=300, chance=chance)


def test_waits_grow_are_spread_and_bounded() -> None:
    clock = TurnedClock()
    runs = [backoff(clock, random.Random(seed)) for seed in range(200)]
    for attempt in range(12):
        waits = [one.failed() for one in runs]
        bound = min(60.0, 2.0**attempt)
        assert all(0.5 <= one <= bound for one in waits)
        if attempt:
            assert max(waits) - min(waits) > bound / 3
    assert runs[0].failed(at_least=500) == 500


def test_one_success_does_not_forget_failures_but_success_that_lasts_does() -> None:
    clock = TurnedClock()
    one = backoff(clock, random.Random(1))
    for _ in range(10):
        one.failed()
    for _ in range(50):
        one.worked()
        clock.turn(1)
        assert max(one.failed() for _ in range(1)) <= 60
    one.worked()
    clock.turn(301)
    one.worked()
    assert one.failed() <= 1


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(days=1)])
def test_trap_36_a_clock_that_jumps_changes_no_wait(jump: timedelta) -> None:
    clock = TurnedClock()
    one = backoff(clock, random.Random(1))
    for _ in range(10):
        one.failed()
    one.worked()
    clock.at += jump
    one.worked()
    assert one.failed() > 1  # nothing was proven yet


def post(desk: Desk, stop: Event) -> Post:
    health = Health(desk.store, desk.clock)
    return Post(desk.uploader, health, desk.clock, stop, Event(), random.Random(1))


def test_a_revoked_key_is_tried_ever_more_seldom_and_told_once(store: Store) -> None:
    desk = Desk(store, lambda _: problem(401, "unauthenticated"))
    running = post(desk, Event())
    waits = [running.turn() for _ in range(8)]
    assert waits[5:] == [3600.0] * 3
    assert len(desk.requests) == 8
    with store.transaction():
        (told,) = store.notes.under("problem:").values()
    assert json.loads(told)["kind"] == "auth"
    assert KEY not in told


def test_when_the_platform_is_back_everything_goes_in_few_requests(store: Store) -> None:
    up = iter([False, False, *[True] * 5])

    def answer(request: httpx.Request) -> httpx.Response:
        if not next(up):
            raise httpx.ConnectError("down")
        return httpx.Response(200, json=items(*["created"] * len(sent(request))))

    desk = Desk(store, answer, signals=450)
    running = post(desk, Event())
    assert running.turn() > 0
    assert running.turn() > 0
    assert running.turn() == 0
    assert desk.waiting() == []
    assert len(desk.requests) == 7
    with store.transaction():
        assert store.notes.under("problem:") == {}


def test_trap_42_what_was_sent_leaves_no_text_in_any_file(store: Store) -> None:
    canary = "canary-snippet-of-a-mail-71d0"
    desk = Desk(store, lambda one: httpx.Response(200, json=items(*["created"] * len(sent(one)))))
    for number in range(100, 150):
        desk.put(number, snippet=canary * 30)

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in store.path.parent.iterdir())

    assert canary.encode() in files()
    assert post(desk, Event()).turn() == 0
    assert canary.encode() not in files()


def test_httpx_comes_without_its_command_line() -> None:
    script = (
        "import sys, fleetprompt_edge.upload.platform\n"
        "print(sorted({'click', 'rich', 'pygments'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
