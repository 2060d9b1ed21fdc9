"""Nothing secret reaches a log, and no bad call of a logger stops the work that it tells of."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from fleetprompt import log
from fleetprompt.db.pool import TenantPool
from fleetprompt.secrets import redact
from fleetprompt.tenants.keys import make_token


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    made = io.StringIO()
    log.configure("INFO", "json", made)
    yield made
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Token abc123def", "abc123def"),
        ("authorization: Basic dTpw", "dTpw"),
        ("redis://:hunter2@cache/0", "hunter2"),
        ("passphrase=hunter2", "hunter2"),
        ("private_key: hunter2", "hunter2"),
        ('{"password": "two words"}', "words"),
        ("https:\\/\\/chat.example.org\\/hooks\\/abcdefghijklmnop", "abcdefghijklmnop"),
    ],
)
def test_a_secret_is_masked_to_its_end(text: str, secret: str) -> None:
    assert secret not in redact(text)


def test_what_is_no_secret_stays_readable() -> None:
    text = "the password of GET /api/v1/signals?type=a.b was not needed, authorization failed: 403"
    assert redact(text) == text


def test_secrets_in_nested_extra_fields_are_masked(stream: io.StringIO) -> None:
    token = make_token("user")
    logging.getLogger("x").warning(
        "refused", extra={"places": [{"at": "/data", token: token}], "error": ValueError(token)}
    )
    assert token not in stream.getvalue()
    assert json.loads(stream.getvalue())["places"][0]["at"] == "/data"


def test_a_call_whose_arguments_do_not_fit_is_logged_and_raises_nothing(
    stream: io.StringIO,
) -> None:
    logging.getLogger("x").warning("one %s two %d", "only")
    assert json.loads(stream.getvalue())["message"] == "one %s two %d"


def test_the_pool_of_connections_tells_warnings_alone(stream: io.StringIO) -> None:
    pool = logging.getLogger(f"{TenantPool.__module__}.{TenantPool.__qualname__}")
    pool.info("Pool disposed.")
    pool.warning("no connection came back")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "no connection came back"
    ]
