"""Codes, versions and mails: what they may be."""

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetprompt.connectors.codes import ALPHABET, code_hashes, make_code
from fleetprompt.connectors.expectations import OLDEST_VERSION, version_warning
from fleetprompt.directives.service import check_params
from fleetprompt.directives.types import find_type
from fleetprompt.errors import InvalidError, SecretFoundError
from fleetprompt.packages.proton_mail_edge_connector.mail import (
    BODY_LIMIT,
    MOST_RECIPIENTS,
    SUBJECT_LIMIT,
)

KEY = b"k" * 32
MAIL: dict[str, Any] = {"to": ["ann@example.org"], "subject": "Hello", "text_body": "Hi"}
SEND = find_type("email.send")


def test_a_code_is_60_bits_of_characters_that_cannot_be_mistaken() -> None:
    assert len(set(ALPHABET)) == 32
    assert not set(ALPHABET) & set("IO01")
    made = {make_code() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"([A-Z2-9]{4}-){2}[A-Z2-9]{4}", one) for one in made)


@given(st.text(alphabet=ALPHABET, min_size=12, max_size=12), st.data())
def test_however_a_code_is_typed_it_is_the_same(code: str, data: st.DataObject) -> None:
    typed = "".join(
        data.draw(st.sampled_from(["", " ", "-", "\t"]))
        + (one.lower() if data.draw(st.booleans()) else one)
        for one in code
    )
    assert code_hashes(KEY, typed) == code_hashes(KEY, code)


@given(st.text(), st.text())
def test_other_texts_have_other_hashes_and_none_is_refused(one: str, other: str) -> None:
    plain = [re.sub(r"[ \-\t\r\n]", "", text).upper() for text in (one, other)]
    assert (code_hashes(KEY, one)[1] == code_hashes(KEY, other)[1]) == (plain[0] == plain[1])
    assert code_hashes(KEY, one) != code_hashes(b"x" * 32, one)


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        (None, False),
        (OLDEST_VERSION, False),
        ("0.1.0+build", False),
        ("10.0.0", False),
        ("0.1.0-rc1", True),
        ("0.0.99", True),
        ("", True),
        ("1.0", True),
        ("one", True),
        ("1.0.0\n", True),
        ("9" * 64, True),
        ("\u0661.0.0", True),
    ],
)
def test_versions_that_are_too_old_or_none_are_warned_of(version: str | None, warned: bool) -> None:
    assert (version_warning(version) is not None) == warned


def test_a_mail_is_stored_with_the_names_of_its_parts() -> None:
    stored = check_params(SEND, MAIL | {"from": "me@example.org", "cc": ["bob@example.org"]})
    assert stored["from"] == "me@example.org"
    assert stored["cc"] == ["bob@example.org"]
    assert check_params(SEND, stored) == stored


@pytest.mark.parametrize(
    "changed",
    [
        {"to": []},
        {"to": ["ann@example.org\r\nBcc: eve@example.org"]},
        {"to": ["ann@example.org, eve@example.org"]},
        {"to": ["Ann <ann@example.org>"]},
        {"to": ["ann@example"]},
        {"to": ["ann@@example.org"]},
        {"to": ["ann@exa\u200bmple.org"]},
        {"to": ['"ann eve"@example.org']},
        {"to": ["a" * 65 + "@example.org"]},
        {"to": ["ann@" + "a" * 250 + ".org"]},
        {"to": "ann@example.org"},
        {"cc": ["ANN@example.org"]},
        {"bcc": [f"a{n}@example.org" for n in range(MOST_RECIPIENTS)]},
        {"from": "me@example.org\n"},
        {"sender": "me@example.org"},
        {"subject": "Hello\r\nBcc: eve@example.org"},
        {"subject": "a\u202eb"},
        {"subject": "x" * (SUBJECT_LIMIT + 1)},
        {"text_body": None},
        {"text_body": " \n"},
        {"text_body": "a\x00b"},
        {"text_body": "é" * (BODY_LIMIT // 2), "html_body": "x"},
        {"reply_to_message_id": "1@example.org"},
        {"reply_to_message_id": "<1@example.org>\r\nX: y"},
        {"reply_to_message_id": "<1@example.org> <2@example.org>"},
        {"account": "not an address"},
        {"headers": {"X-Other": "1"}},
    ],
)
def test_a_mail_that_could_go_elsewhere_or_hide_something_is_refused(
    changed: dict[str, Any],
) -> None:
    with pytest.raises(InvalidError) as refused:
        check_params(SEND, MAIL | changed)
    assert refused.value.errors
    assert all(one["pointer"].startswith("/params") for one in refused.value.errors)


def test_a_mail_may_be_as_large_as_is_said_and_in_any_script() -> None:
    check_params(
        SEND,
        {
            "to": [f"a{n}@example.org" for n in range(MOST_RECIPIENTS)],
            "subject": unicodedata.normalize("NFC", "Grüße, 你好"),
            "text_body": "é" * (BODY_LIMIT // 2),
            "reply_to_message_id": "<CA+x=1@mail.example.org>",
        },
    )
    check_params(SEND, MAIL | {"to": ["jörg@müller.example"], "subject": ""})


def test_a_mail_with_a_key_in_it_is_refused() -> None:
    with pytest.raises(SecretFoundError):
        check_params(SEND, MAIL | {"text_body": "Authorization: Bearer abcdefghijklmnop"})


def test_a_mail_waits_for_an_approval_and_may_be_asked_for_over_http() -> None:
    assert SEND.approval is not None
    assert SEND.over_http
    assert SEND.target == "connector"
    assert not SEND.allows("viewer")
    assert not SEND.allows("connector")
