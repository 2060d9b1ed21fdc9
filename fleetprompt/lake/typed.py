"""Typed columns out of the raw JSON, wherever its field has the column's type; else null."""

from collections.abc import Callable, Mapping, Sequence
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
_TYPED = [column for column in SIGNALS.columns if column.source is not None]
_decode = msgspec.json.Decoder().decode


def typed_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The typed columns of these signals, by name."""
    sources = {name: [_decode(row[name]) for row in rows] for name in ("data", "metadata")}
    return {column.name: _values(column, sources[column.source or "data"]) for column in _TYPED}


def _values(column: Column, objects: Sequence[Mapping[str, Any]]) -> list[Any]:
    read, name = _READ[column.kind], column.name
    return [read(found.get(name)) for found in objects]
