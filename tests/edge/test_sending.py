"""Sending what FleetPrompt asks for: never twice, never told as sent unless it was."""

import json
from datetime import timedelta
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from fleetprompt_edge.sending.letter import letter
from fleetprompt_edge.sending.order import order_of
from fleetprompt_edge.sending.smtp import Delivery
from fleetprompt_edge.store import Store

from tests.edge.sending import Office, asked, sending_profile

FAILED_554 = Delivery("doubtful", "network", "Bridge could not send the mail (554).", said_no=True)
PAUSE = Delivery("not_taken", "rate_limit", "Bridge pauses after failures.", 30.0)
REFUSED = Delivery("refused", "validation", "Bridge may not send as or to that address.")


@pytest.fixture
def office(store: Store) -> Office:
    """A sender on an empty store."""
    return Office(store)


def test_a_mail_is_sent_once_and_told(office: Office) -> None:
    report = office.work(asked())
    assert report is not None
    assert report["outcome"] == "succeeded"
    assert [one[0] for one in office.bridge.sent] == [report["result"]["message_id"]]
    assert office.told() == ["requested", "sent"]
    with office.store.transaction():
        signal = json.loads(office.store.queue.first(2, 1 << 20)[1].body)
    assert signal["dedupe_key"] == f"email_out:northwind:{asked().id}"
    assert signal["metadata"]["causation_id"] == f"directive:{asked().id}"
    assert signal["metadata"]["correlation_id"] == "order:1"
    assert "Ann" not in json.dumps(signal)


def test_trap_1_a_look_alike_waits_until_bridge_sends_it(office: Office) -> None:
    office.work(asked(1, text_body="Same"))
    report = office.work(asked(2, text_body="Same"))
    assert report is not None
    assert (report["outcome"], report["error_kind"]) == ("retry", "rate_limit")
    assert office.told() == ["requested", "sent", "requested"]
    office.clock.turn(report["retry_after_seconds"] + 1)
    again = office.work(asked(2, 2, text_body="Same"))
    assert again is not None
    assert again["outcome"] == "succeeded"
    assert len(office.bridge.sent) == 2


def test_trap_1_a_look_alike_of_another_program_is_never_told_as_sent(
    office: Office, tmp_path: Any
) -> None:
    with Store(tmp_path / "other") as other_store:
        other = Office(other_store, clock=office.clock)
        other.bridge = office.bridge
        other.sender = other.restarted(other_store)
        other.work(asked(9, text_body="Same"))
    report = office.work(asked(1, text_body="Same"))
    assert report is not None
    assert report["outcome"] == "unknown"
    assert "suppressed_by_bridge" in report["error_message"]
    assert office.told() == ["requested"]
    office.clock.turn(1900)
    again = office.work(asked(1, 2, text_body="Same"))
    assert again is not None
    assert again["outcome"] == "succeeded"
    assert len(office.bridge.sent) == 2


def test_trap_2_a_pause_is_waited_out_and_nothing_is_told_as_failed(office: Office) -> None:
    office.bridge.script = [PAUSE, PAUSE]
    reports = [office.work(asked(1, attempt)) for attempt in (1, 2, 3)]
    assert [one and one["outcome"] for one in reports] == ["retry", "retry", "succeeded"]
    assert office.told() == ["requested", "sent"]
    assert len(office.bridge.sent) == 1


def test_trap_2_a_refused_sender_is_final_at_once(office: Office) -> None:
    office.bridge.script = [REFUSED]
    report = office.work(asked())
    assert report is not None
    assert (report["outcome"], report["error_kind"]) == ("failed", "validation")
    assert office.told() == ["requested", "failed"]
    again = office.work(asked(1, 2))
    assert again is not None
    assert again["outcome"] == "failed"
    assert office.bridge.tries == 1


def test_trap_2_an_unknown_554_is_looked_into_before_it_is_tried_again(office: Office) -> None:
    office.bridge.script = [FAILED_554]
    first = office.work(asked())
    assert first is not None
    assert first["outcome"] == "retry"
    second = office.work(asked(1, 2))
    assert second is not None
    assert second["outcome"] == "succeeded"
    assert len(office.bridge.sent) == 1


def test_trap_4_an_answer_that_is_lost_is_found_among_the_sent_mail(office: Office) -> None:
    office.bridge.script = ["lost"]
    report = office.work(asked())
    assert report is not None
    assert report["outcome"] == "succeeded"
    assert (office.bridge.tries, len(office.bridge.sent)) == (1, 1)


def test_trap_5_what_was_sent_is_reported_again_and_not_sent_again(office: Office) -> None:
    first = office.work(asked())
    office.sender = office.restarted(office.store)
    second = office.work(asked(1, 2))
    assert first is not None
    assert second is not None
    assert second["result"] == first["result"]
    assert office.bridge.tries == 1
    assert office.told() == ["requested", "sent"]


def test_trap_6_what_shows_late_is_waited_for(office: Office) -> None:
    office.bridge.script, office.bridge.late = ["lost"], 60
    report = office.work(asked())
    assert report is not None
    assert report["outcome"] == "succeeded"
    assert office.bridge.tries == 1


def test_trap_6_what_does_not_show_is_sent_again_under_the_same_message_id(office: Office) -> None:
    office.bridge.script = ["gone"]
    assert office.work(asked()) is None, "nobody can tell, so nothing is said"
    with office.store.transaction():
        known = office.store.sends.find(asked().id)
    report = office.work(asked(1, 2))
    assert report is not None
    assert known is not None
    assert report["result"]["message_id"] == known.message_id
    assert [one[0] for one in office.bridge.sent] == [known.message_id]


def test_while_the_sent_mail_cannot_be_read_nothing_is_said_and_nothing_sent_again(
    office: Office,
) -> None:
    office.bridge.script, office.bridge.unreadable = ["lost"], True
    assert [office.work(asked(1, attempt)) for attempt in (1, 2, 3)] == [None] * 3
    assert (office.bridge.tries, office.told()) == (1, ["requested"])
    office.bridge.unreadable = False
    report = office.work(asked(1, 4))
    assert report is not None
    assert report["outcome"] == "succeeded"
    assert office.bridge.tries == 1


@pytest.mark.parametrize(
    "params",
    [
        {"from": "boss@proton.me"},
        {"account": "other@proton.me"},
        {"subject": "Hello\r\nBcc: spy@example.org"},
        {"to": ["ann@example.org\r\nBcc: spy@example.org"]},
        {"to": ["ann@example.org, bob@example.org"]},
        {"to": ["Ann <ann@example.org>"]},
        {"to": []},
        {"to": [f"u{n}@example.org" for n in range(101)]},
        {"to": ["a@example.org"], "bcc": ["A@example.org"]},
        {"text_body": "  "},
        {"text_body": None},
        {"text_body": "x" * 2_000_000},
        {"text_body": "\ud800"},
        {"reply_to_message_id": "<1@example.org>\r\nX: y"},
        {"headers": {"X-Evil": "1"}},
        {"to": "ann@example.org"},
        {"to": ["änn@example.org"]},
    ],
)
def test_trap_38_what_the_owner_does_not_allow_is_not_sent(
    office: Office, params: dict[str, Any]
) -> None:
    report = office.work(asked(**params))
    assert report is not None
    assert (report["outcome"], report["error_kind"]) == ("failed", "validation")
    assert "spy" not in json.dumps(report)
    assert office.bridge.tries == 0
    assert office.told() == ["failed"]


def test_trap_38_another_type_and_another_content_under_one_id_are_refused(office: Office) -> None:
    strange = office.work(asked(3)._replace(type="chat.post"))
    office.work(asked(1))
    changed = office.work(asked(1, 2, subject="Other"))
    assert strange is not None
    assert changed is not None
    assert (strange["outcome"], changed["outcome"]) == ("failed", "failed")
    assert len(office.bridge.sent) == 1


def test_an_empty_list_of_senders_lets_nothing_out(store: Store) -> None:
    office = Office(store)
    office.profile = sending_profile()
    object.__setattr__(office.profile.sending, "allowed_from_addresses", ())
    office.sender = office.restarted(store)
    report = office.work(asked())
    assert report is not None
    assert report["outcome"] == "failed"


def test_trap_39_without_the_lease_nothing_is_given_to_bridge(office: Office) -> None:
    assert office.work(asked(), held=False) is None
    assert office.bridge.tries == 0
    office.work(asked(1, 2))
    office.work(asked(1, 3))
    assert len(office.bridge.sent) == 1


def test_the_hour_s_recipients_are_counted(store: Store) -> None:
    office = Office(store, max_recipients_per_hour=2)
    two = asked(1, to=["a@example.org", "b@example.org"])
    office.work(two)
    report = office.work(asked(2))
    assert report is not None
    assert (report["outcome"], report["error_kind"]) == ("retry", "rate_limit")
    office.clock.turn(3601)
    again = office.work(asked(2, 2))
    assert again is not None
    assert again["outcome"] == "succeeded"


def test_trap_32_a_database_that_was_lost_sends_nothing_twice(store: Store, tmp_path: Path) -> None:
    office = Office(store)
    office.bridge.script, office.bridge.unreadable = ["lost"], True
    assert office.work(asked()) is None
    office.clock.turn(2_000)
    with Store(tmp_path / "new") as fresh:
        office.store, office.sender = fresh, office.restarted(fresh)
        assert office.work(asked(1, 2)) is None, "nobody can tell yet"
        office.bridge.unreadable = False
        report = office.work(asked(1, 3))
        assert report is not None
        assert report["outcome"] == "succeeded"
        assert office.bridge.tries == 1
        # What no attempt has sent is sent.
        report = office.work(asked(2, 2))
        assert report is not None
        assert report["outcome"] == "succeeded"
        assert office.bridge.tries == 2


def test_trap_36_a_clock_that_was_wrong_sends_nothing_twice_and_holds_up_nothing(
    store: Store,
) -> None:
    office = Office(store, max_recipients_per_hour=1)
    right = office.clock.at
    office.clock.at += timedelta(days=400)
    office.bridge.wrong_by = timedelta(days=400)
    # Far ahead all the time: what the server shows of it has the right time.
    report = office.work(asked())
    assert report is not None
    assert report["outcome"] == "succeeded"
    office.clock.turn(3601)
    # Put right between a try and the look that is to prove it.
    office.bridge.script, office.bridge.unreadable = ["lost"], True
    assert office.work(asked(2)) is None
    office.clock.at, office.bridge.wrong_by = right, timedelta()
    office.bridge.unreadable = False
    report = office.work(asked(2, 2))
    assert report is not None
    assert report["outcome"] == "succeeded"
    assert office.bridge.tries == 2
    # Neither the hour's recipients nor a look-alike of 400 days ahead count for so long.
    report = office.work(asked(3, text_body="Text 1"))
    assert report is not None
    assert report["outcome"] == "succeeded"


def test_trap_40_header_and_envelope_have_the_same_letters(office: Office) -> None:
    params = asked(to=["Ann@Example.org"], cc=["Bob@EXAMPLE.org"], bcc=["Eve@example.org"]).params
    order = order_of(params, office.profile)
    raw = letter(order, "<1@proton.me>", office.clock.now())
    mail = BytesParser(policy=default).parsebytes(raw)
    assert [mail["To"], mail["Cc"]] == ["Ann@Example.org", "Bob@EXAMPLE.org"]
    assert order.recipients == ("Ann@Example.org", "Bob@EXAMPLE.org", "Eve@example.org")
    assert b"Eve" not in raw


def test_a_reply_names_what_it_answers_however_long_the_name(office: Office) -> None:
    parent = f"<{'x' * 490}@{'y' * 470}>"
    params = asked(
        reply_to_message_id=parent, subject="Grüße", text_body="Ja ü", html_body="<p>Ja ü</p>"
    ).params
    raw = letter(order_of(params, office.profile), "<1@proton.me>", office.clock.now())
    assert f"\r\nIn-Reply-To: {parent}\r\n".encode() in raw
    assert f"\r\nReferences: {parent}\r\n".encode() in raw
    assert raw.isascii()
    mail = BytesParser(policy=default).parsebytes(raw)
    assert mail["Subject"] == "Grüße"
    assert [one.get_content_type() for one in mail.iter_parts()] == ["text/plain", "text/html"]
