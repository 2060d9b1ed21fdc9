"""What the connector logs, and which folders a profile means."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fleetprompt_edge import log
from fleetprompt_edge.imap.folders import watched_folders
from fleetprompt_edge.imap.session import Listed
from fleetprompt_edge.ingest.reader import Watched
from fleetprompt_edge.profile import Mailbox

from tests.edge.ingesting import CONNECTOR

PASSWORD = 'canary-"pass\\wörd'


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Where the log goes, at its most talkative; afterwards it is as before."""
    kept = (log.logger.handlers[:], log.logger.propagate, log.logger.level)
    out = io.StringIO()
    log.start(CONNECTOR, (PASSWORD, ""), debug=True, stream=out)
    yield out
    log.logger.handlers[:], log.logger.propagate = kept[:2]
    log.logger.setLevel(kept[2])


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_the_connector_and_what_was_added(written: io.StringIO) -> None:
    log.logger.info("looked", extra={"folder": "INBOX"})
    (line,) = lines(written)
    assert (line["message"], line["level"], line["folder"]) == ("looked", "info", "INBOX")
    assert line["connector_id"] == CONNECTOR
    assert str(line["at"]).endswith("Z")


def test_trap_41_secrets_are_masked_wherever_they_stand(written: io.StringIO) -> None:
    log.logger.debug(
        "sent %s", PASSWORD, extra={"headers": ["Bearer abcdefghijklmnop", {"x": PASSWORD}]}
    )
    log.logger.warning('api_key="s3cret" and fp_conn_' + "a" * 43)
    text = written.getvalue()
    for secret in ("canary", "wörd", "abcdefghijklmnop", "s3cret", "a" * 43):
        assert secret not in text
    assert len(lines(written)) == 2


def test_trap_41_an_exception_shows_where_it_happened_and_not_what_it_said(
    written: io.StringIO,
) -> None:
    def fail() -> None:
        raise ValueError(f"could not read: {PASSWORD} canary-subject")

    try:
        fail()
    except ValueError:
        log.logger.exception("a thread failed")
    (line,) = lines(written)
    trace = line["exception"]
    assert isinstance(trace, list)
    assert trace[0] == "ValueError"
    assert any(" fail" in one for one in trace)
    assert "canary" not in written.getvalue()


def test_trap_41_debug_mode_does_not_make_other_libraries_talk(written: io.StringIO) -> None:
    for name in ("imapclient.imaplib", "httpx", "httpcore.connection", "keyring.backend"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)


LISTED = [
    Listed("INBOX", frozenset(), selectable=True),
    Listed("Gesendet", frozenset({"\\sent"}), selectable=True),
    Listed("Entwürfe", frozenset({"\\drafts"}), selectable=True),
    Listed("Folders", frozenset({"\\noselect", "\\archive"}), selectable=False),
    Listed("Archiv", frozenset({"\\archive"}), selectable=True),
]


def folders(*names: str, labels: tuple[str, ...] = ()) -> list[Watched]:
    return watched_folders(replace(Mailbox(), folders=names, processed_labels=labels), LISTED)


def test_a_folder_is_meant_by_its_name_or_by_what_it_is_for() -> None:
    assert folders("inbox") == [Watched("INBOX")]
    assert folders("\\Archive", "Archiv") == [Watched("Archiv")]
    assert folders("\\Sent", "Entwürfe") == [
        Watched("Gesendet", "outgoing"),
        Watched("Entwürfe", "outgoing"),
    ]
    assert folders("INBOX", labels=("Labels/Done",)) == [
        Watched("INBOX"),
        Watched("Labels/Done", "processed"),
    ]


def test_a_folder_that_is_not_there_is_kept_to_be_told_as_gone() -> None:
    assert folders("Labels/none", "\\Junk") == [Watched("Labels/none"), Watched("\\Junk")]


def test_a_pattern_means_what_is_there_and_what_is_excluded_is_not_watched() -> None:
    listed = [
        *LISTED,
        *(
            Listed(name, frozenset(), selectable=True)
            for name in ("Folders/a", "Folders/b [x]?", "Folders/b/c", "Labels/a")
        ),
    ]

    def meant(*names: str, excluded: tuple[str, ...] = ()) -> list[str]:
        mailbox = replace(Mailbox(), folders=names, exclude_folders=excluded)
        return [one.name for one in watched_folders(mailbox, listed)]

    assert meant("Folders/*") == ["Folders/a", "Folders/b [x]?", "Folders/b/c"]
    assert meant("INBOX", "Folders/*", excluded=("Folders/b*",)) == ["INBOX", "Folders/a"]
    assert meant("Folders/*", excluded=("Folders/b [x]?",)) == ["Folders/a", "Folders/b/c"]
    assert meant("*/a", "\\Archive", excluded=("Archiv",)) == ["Folders/a", "Labels/a"]
    assert meant("Nothing/*") == []
