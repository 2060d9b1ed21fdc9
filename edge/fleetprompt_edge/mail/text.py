"""Making text out of whatever bytes a mail holds; none of this raises.

Charsets lie, encodings break off, and PostgreSQL takes neither NUL nor half a surrogate pair
(research/messaging.md §6.1).
"""

import re
import unicodedata
from email.errors import MessageError
from email.header import decode_header

# Names that mails use for charsets which Python knows under another name.
_CHARSETS = {"unknown-8bit": "latin-1", "x-unknown": "latin-1", "ansi_x3.110-1983": "latin-1"}
_SPACES = re.compile(r"\s+")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bBqQ]\?[^?]*\?=")


def decoded(raw: bytes, charset: str | None) -> str:
    """Bytes as text: in the named charset, else UTF-8, else Windows' western one."""
    name = (charset or "utf-8").strip().strip("'\"").lower()
    name = _CHARSETS.get(name, name)
    for one in (name, "utf-8"):
        try:
            return raw.decode(one)
        except UnicodeDecodeError as error:
            # The beginning of a text may end within a character.
            if "end of data" in error.reason or "truncated" in error.reason:
                return raw[: error.start].decode(one, "replace")
        except (LookupError, UnicodeError, ValueError):
            continue
    if name in ("utf-8", "utf8", "us-ascii", "ascii"):
        name = "cp1252"
    try:
        return raw.decode(name, "replace")
    except (LookupError, UnicodeError, ValueError):
        return raw.decode("cp1252", "replace")


def clean(text: str) -> str:
    """Without NUL, other control characters save line ends and tabs, and halves of pairs."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        one for one in text if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cs")
    )


def one_line(text: str) -> str:
    """Clean text with every run of white space as one space, without invisible padding."""
    return _SPACES.sub(" ", clean(_INVISIBLE.sub("", _SPACES.sub(" ", text)))).strip()


def shortened(text: str, most: int) -> str:
    """At most so many characters, an ellipsis the last of them where something was cut off."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def unencoded(value: str) -> str:
    """A header's value with its encoded words (RFC 2047) as text."""
    if not _ENCODED_WORD.search(value):
        return value
    try:
        parts = decode_header(value)
    except (ValueError, LookupError, AssertionError, MessageError):
        return value
    return "".join(
        decoded(part, charset) if isinstance(part, bytes) else part for part, charset in parts
    )
