"""What is refused at the door, however it is spelt."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetprompt import secrets
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.errors import InvalidError, SecretFoundError
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Accepted, Producer, read_one
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.read import Filter, list_signals
from fleetprompt.tenants.keys import make_token
from fleetprompt.tenants.service import Tenant

HEAD = b'{"type":"order.placed","source":"shop","occurred_at":"2026-01-06T09:00:00Z",'
WEBHOOK = "https://chat.example.org/hooks/abcdefghijklmnop"


def read(data: str) -> Accepted:
    return read_one(HEAD + b'"data":' + data.encode() + b"}", Producer())


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        # PHP's json_encode and others escape every slash.
        (json.dumps({"url": WEBHOOK}).replace("/", "\\/"), "/data/url"),
        ('{"header": "Basic\\tdXNlcjpwYXNzd29yZA=="}', "/data/header"),
        pytest.param(
            # Random, so it must not be in the test's name, which all workers have to agree on.
            json.dumps({"list": [{make_token("user"): 1}]}),
            "/data/list/0",
            id="a key as a name",
        ),
    ],
)
def test_a_secret_is_found_however_it_is_spelt(data: str, pointer: str) -> None:
    with pytest.raises(SecretFoundError) as refused:
        read(data)
    assert [place["pointer"] for place in refused.value.errors] == [pointer]


@pytest.mark.parametrize(
    "data",
    [
        '{"password": null, "token": false}',
        '{"password_changed": true, "secret": ""}',
        '{"password": [], "cookie": {"accepted": true, "set": null}}',
        '{"tokens": 12, "url": "https://example.org/services/"}',
    ],
)
def test_what_only_speaks_of_secrets_is_taken(data: str) -> None:
    read(data)


_PIECES = st.sampled_from(
    [
        *"fFpP_/\\:=-. \t\xa0ſKaAbB09",
        "basic",
        "bearer",
        "hooks",
        "services",
        "https://x",
        "password",
        "token",
        "api",
        "key",
        "secret",
        "cookie",
        "authorization",
        "a" * 12,
    ]
)


@given(st.dictionaries(st.lists(_PIECES).map("".join), st.lists(_PIECES).map("".join)))
def test_the_quick_scan_passes_over_nothing_that_the_closer_look_finds(data: Any) -> None:
    for raw in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
        for spelt in (raw, raw.replace("/", "\\/")):
            if list(secrets.find(data)):
                assert secrets.may_hold_secret(spelt.encode())


@pytest.mark.parametrize("number", ["1e400", "-1E+400", "9" * 400, "9" * 5000, "1e" + "9" * 5000])
@pytest.mark.parametrize("besides", ["", ', "note": "pass"'])
def test_a_number_that_no_reader_could_take_is_refused(number: str, besides: str) -> None:
    """RFC 8259 §6: beyond IEEE 754's double; Python reads none of more than 4300 digits."""
    for data in (f'{{"n":{number}{besides}}}', f'{{"n": [1, {number} ] {besides}}}'):
        with pytest.raises(InvalidError) as refused:
            read(data)
        assert "out of range" in str(refused.value.errors)


@pytest.mark.parametrize(
    "number", ["1e-400", "1.7e308", "9" * 300, "0." + "3" * 5000, "18446744073709551616"]
)
async def test_a_number_that_is_taken_can_be_read_again(
    settings: Settings, tenant: Tenant, database: Database, number: str
) -> None:
    writer = SignalWriter(application_url(settings), settings)
    await writer.start()
    try:
        await asyncio.wait_for(writer.submit(tenant.schema, [read(f'{{"n":{number}}}')]), 5)
    finally:
        await writer.close()
    async with database.tenant(tenant.schema) as session:
        [found] = await list_signals(session, Filter())
    assert found.data["n"] == pytest.approx(json.loads(number))


def test_a_zone_that_postgresql_does_not_know_is_still_a_time() -> None:
    """PostgreSQL takes offsets up to ±15:59:59; RFC 3339 §5.6 allows ±23:59."""
    raw = HEAD.replace(b"09:00:00Z", b"09:00:00+23:59") + b'"data":{}}'
    assert b'"occurred_at":"2026-01-05T09:01:00Z"' in read_one(raw, Producer()).encoded


@pytest.mark.parametrize(
    "text",
    [
        "http://" * 9000 + "/hooks/",
        "-----BEGIN " + "PRIVATE KEY" * 5000,
        "a" * 60_000 + " bearer",
        "abc_token" * 7000,
        "a_" * 30_000 + "pass",
        "password=" * 7000,
    ],
)
def test_no_text_makes_the_search_for_secrets_last(text: str) -> None:
    """A signal is looked into on the event loop; unbounded patterns took seconds for 64 KiB."""
    started = time.process_time()
    list(secrets.find({"a": text, text: ""}))
    secrets.redact(text)
    assert time.process_time() - started < 0.5
