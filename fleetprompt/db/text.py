"""What PostgreSQL can hold of text and JSON: no NUL, and no half of a surrogate pair."""

import json
import re
from typing import Any

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
# A NUL in JSON; an even number of backslashes before it is text about one.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def storable(text: str) -> str:
    """``text`` with U+FFFD for each character that cannot be stored, as for bytes that are no UTF-8."""
    return _NOT_STORABLE.sub("\ufffd", text)


def is_storable_json(value: Any) -> bool:
    """Whether a ``jsonb`` column takes it."""
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
        written.encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return not _NUL.search(written)
