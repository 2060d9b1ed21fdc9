"""Typed columns out of the raw JSON, wherever its field has the column's type; else null."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from fleetprompt.lake.columns import SIGNALS, Column, Kind

_LARGEST = 2**63 - 1


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and abs(value) <= _LARGEST else None


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if known else None
    except OverflowError:
        return None


_READ: Mapping[Kind, Callable[[Any], Any]] = {
    "string": _text,
    "bigint": _whole,
    "double": _number,
}
_TYPED = {
    source: [column for column in SIGNALS.columns if column.source == source]
    for source in ("data", "metadata")
}


def _decoder(columns: Sequence[Column]) -> msgspec.json.Decoder[list[Any]]:
    """Of a JSON array of objects; of their fields only the columns' are made, which is what costs."""
    fields = [(column.name, Any, None) for column in columns]
    return msgspec.json.Decoder(list[msgspec.defstruct("Fields", fields)])  # type: ignore[misc]


_DECODERS = {source: _decoder(columns) for source, columns in _TYPED.items()}


def typed_columns(objects: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """The typed columns by name, of the signals whose ``data`` and ``metadata`` these are, as JSON."""
    found = {}
    for source, columns in _TYPED.items():
        parsed = _DECODERS[source].decode(f"[{','.join(objects[source])}]")
        for column in columns:
            read = _READ[column.kind]
            found[column.name] = [
                None if value is None else read(value)
                for value in map(attrgetter(column.name), parsed)
            ]
    return found
