"""The signal envelope, version 1: reading it from a request body and refusing what is wrong.

``data`` and ``metadata`` stay raw JSON all the way into PostgreSQL; they are looked into only when a
quick scan of the bytes says that there may be something to refuse. Limits and rules are those of
the architecture, §4; every refusal names an RFC 6901 pointer into the request body.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from fleetprompt.errors import InvalidError, MalformedError, TooLargeError
from fleetprompt.ids import new_id
from fleetprompt.signals.screening import Pointed, check_depth, is_suspect, look_closer

T = TypeVar("T")

SIGNAL_LIMIT = 64 * 1024  # bytes
BATCH_LIMIT = 1024 * 1024  # bytes
BATCH_ITEMS = 1_000

Type = Annotated[str, Meta(max_length=128, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+\Z")]
Source = Annotated[str, Meta(max_length=128, pattern=r"^[a-z0-9_.-]+(:[a-z0-9_.-]+)*\Z")]
Identifier = Annotated[str, Meta(min_length=1, max_length=256)]
DedupeKey = Annotated[str, Meta(min_length=1, max_length=512)]

# Types and sources that only the platform itself writes.
RESERVED_TYPES = (
    "directive.",
    "approval.",
    "package.",
    "workflow.run.",
    "value.",
    "integration.",
    "api.",
)
RESERVED_SOURCES = ("platform", "dagster")


def _empty_object() -> msgspec.Raw:
    return msgspec.Raw(b"{}")


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """One signal as a producer sends it."""

    type: Type
    source: Source
    occurred_at: Annotated[datetime, Meta(tz=True)]
    data: msgspec.Raw = msgspec.field(default_factory=_empty_object)
    metadata: msgspec.Raw = msgspec.field(default_factory=_empty_object)
    subject_type: Identifier | None = None
    subject_id: Identifier | None = None
    dedupe_key: DedupeKey | None = None
    source_event_id: DedupeKey | None = None


class Metadata(msgspec.Struct):
    """What the platform reads of ``metadata``; other members are kept as they are."""

    schema_version: Literal[1] | None = None
    correlation_id: Identifier | None = None
    causation_id: Identifier | None = None
    connector_id: Identifier | None = None
    device_id: Identifier | None = None
    account_id: Identifier | None = None


class Row(msgspec.Struct):
    """One signal as it goes to PostgreSQL: a record for ``jsonb_to_recordset``."""

    id: UUID
    key: UUID | None
    type: str
    source: str
    occurred_at: datetime
    subject_type: str | None
    subject_id: str | None
    dedupe_key: str | None
    source_event_id: str | None
    data: msgspec.Raw
    metadata: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Producer:
    """What the key of a request means for the signals in it."""

    needs_key: bool = False
    connector_id: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A signal that passed: what to store, and where it stood in the request."""

    pointer: str
    row: Row

    @property
    def encoded(self) -> bytes:
        """The row as JSON."""
        return _encoder.encode(self.row)


@dataclass(frozen=True, slots=True)
class Refused:
    """An item of a batch that did not pass, and why."""

    pointer: str
    error: InvalidError | TooLargeError


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)
_metadata_decoder = msgspec.json.Decoder(Metadata)
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])

_PATH = re.compile(r" - at `(?P<path>[^`]+)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>.*?)`")
_MISSING = re.compile(r"missing required field `(?P<name>.*?)`")
_SHAPES = {
    "type": "two or more parts of a-z, 0-9 and _ joined by dots, such as email.inbound.received",
    "source": "parts of a-z, 0-9, _, - and dots joined by colons, such as edge:proton_mail",
}


def key_of(dedupe_key: str | None, source: str, source_event_id: str | None) -> UUID | None:
    """What is unique in a tenant: 128 bits of SHA-256 over the dedupe key, else the producer's own id."""
    if dedupe_key is not None:
        # The platform's keys can be foreseen, so no producer's may stand in their way.
        kind = "p" if source.startswith(RESERVED_SOURCES) else "k"
        text = f"{kind}\0{dedupe_key}"
    elif source_event_id is not None:
        text = f"e\0{source}\0{source_event_id}"
    else:
        return None
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])


def read_one(body: bytes, producer: Producer) -> Accepted:
    """A body that is one signal; raises what is wrong with it."""
    _check_text(body)
    return _accept(body, "", producer, suspect=is_suspect(body))


def read_many(body: bytes, producer: Producer, *, lines: bool) -> list[Accepted | Refused]:
    """A batch: a JSON array, or NDJSON when ``lines``. In the order of the request."""
    _check_text(body)
    if lines:
        items = [line for line in body.split(b"\n") if line.strip()]
    else:
        try:
            items = [bytes(item) for item in _items_decoder.decode(body)]
        except (msgspec.MsgspecError, RecursionError) as error:
            raise MalformedError(
                f"The body is no JSON array of signals: {_reason(error)}."
            ) from None
    if len(items) > BATCH_ITEMS:
        raise TooLargeError(
            f"A batch holds at most {BATCH_ITEMS} signals; this one has {len(items)}. Split it."
        )
    suspect = is_suspect(body)
    found: list[Accepted | Refused] = []
    for index, item in enumerate(items):
        pointer = f"/{index}"
        try:
            found.append(_accept(item, pointer, producer, suspect=suspect and is_suspect(item)))
        except MalformedError as error:
            refusal = InvalidError(
                error.detail, errors=[{"pointer": pointer, "detail": error.detail}]
            )
            found.append(Refused(pointer, refusal))
        except (InvalidError, TooLargeError) as error:
            found.append(Refused(pointer, error))
    return found


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"The body is not UTF-8 (byte {error.start}).") from None


def _accept(raw: bytes, pointer: str, producer: Producer, *, suspect: bool) -> Accepted:
    if len(raw) > SIGNAL_LIMIT:
        raise TooLargeError(
            f"A signal has at most {SIGNAL_LIMIT} bytes; this one has {len(raw)}. Store the content "
            "elsewhere and refer to it.",
            errors=[{"pointer": pointer, "detail": "too large"}],
        )
    check_depth(raw, pointer)
    envelope = _decode(_decoder, raw, pointer)
    metadata = _decode(_metadata_decoder, envelope.metadata, f"{pointer}/metadata")
    errors = list(_rules(envelope, metadata, pointer, producer))
    if errors:
        raise InvalidError("This signal is not valid.", errors=errors)
    if suspect:
        look_closer(raw, pointer)
    row = Row(
        id=new_id(),
        key=key_of(envelope.dedupe_key, envelope.source, envelope.source_event_id),
        type=envelope.type,
        source=envelope.source,
        # PostgreSQL takes no offset beyond 15:59:59; RFC 3339 does.
        occurred_at=envelope.occurred_at.astimezone(UTC),
        subject_type=envelope.subject_type,
        subject_id=envelope.subject_id,
        dedupe_key=envelope.dedupe_key,
        source_event_id=envelope.source_event_id,
        data=envelope.data,
        metadata=_with_version(bytes(envelope.metadata), metadata),
    )
    return Accepted(pointer, row)


def _rules(
    envelope: Envelope, metadata: Metadata, pointer: str, producer: Producer
) -> Iterator[Pointed]:
    """The rules that a type cannot say."""
    if not bytes(envelope.data).lstrip().startswith(b"{"):
        yield {"pointer": f"{pointer}/data", "detail": "must be a JSON object"}
    if not 1900 <= envelope.occurred_at.year <= 2200:
        yield {"pointer": f"{pointer}/occurred_at", "detail": "must lie between 1900 and 2200"}
    if envelope.type.startswith(RESERVED_TYPES):
        yield {"pointer": f"{pointer}/type", "detail": "is written by the platform alone"}
    if envelope.source.startswith(RESERVED_SOURCES):
        yield {"pointer": f"{pointer}/source", "detail": "is the platform's own"}
    if producer.needs_key and envelope.dedupe_key is None:
        yield {"pointer": f"{pointer}/dedupe_key", "detail": "is required from a connector"}
    if producer.connector_id is not None and metadata.connector_id not in (
        None,
        producer.connector_id,
    ):
        yield {
            "pointer": f"{pointer}/metadata/connector_id",
            "detail": "is not the connector that this key was made for",
        }


def _with_version(raw: bytes, metadata: Metadata) -> msgspec.Raw:
    if metadata.schema_version is not None:
        return msgspec.Raw(raw)
    rest = raw.strip()[1:].lstrip()
    comma = b"" if rest.startswith(b"}") else b","
    return msgspec.Raw(b'{"schema_version":1' + comma + rest)


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw, pointer: str) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidError(
            "This signal is not valid.", errors=[_explained(str(error), pointer)]
        ) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedError(f"This is not a JSON object: {_reason(error)}.") from None


def _explained(message: str, pointer: str) -> Pointed:
    """msgspec's message as a pointer and a sentence that says how to mend it."""
    at = pointer
    if place := _PATH.search(message):
        at += place["path"].removeprefix("$").replace(".", "/")
        message = message[: place.start()]
    name = at.rpartition("/")[2]
    if unknown := _UNKNOWN.search(message):
        return {
            "pointer": f"{pointer}/{unknown['name']}",
            "detail": "is not a member of the envelope; put it into `data`",
        }
    if missing := _MISSING.search(message):
        return {"pointer": f"{pointer}/{missing['name']}", "detail": "is required"}
    if "matching regex" in message and name in _SHAPES:
        message = _SHAPES[name]
    elif "timezone component" in message:
        message = "needs a zone, such as 2026-01-06T09:00:00Z"
    elif name == "schema_version":
        message = "must be 1"
    return {"pointer": at, "detail": message}


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
