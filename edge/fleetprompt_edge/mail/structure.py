"""What BODYSTRUCTURE says (RFC 3501 §7.4.2): which parts there are, which holds the text."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from fleetprompt_edge.mail.text import decoded, one_line, shortened, unencoded

_MOST_PARTS = 500
_LONGEST_NAME = 255


class Part(NamedTuple):
    """A part that is no container. ``section`` is its number, ``size`` its encoded bytes."""

    section: str
    content_type: str
    charset: str | None
    encoding: str
    size: int
    filename: str | None
    attached: bool
    flowed: bool


def parts(structure: Any) -> list[Part]:
    """The parts in order, at most 500; what does not look like a structure yields none."""
    found: list[Part] = []
    for part in _walk(structure, ""):
        found.append(part)
        if len(found) == _MOST_PARTS:
            break
    return found


def text_part(found: list[Part], subtype: str) -> Part | None:
    """The first text of that subtype (``plain``, ``html``) that is not attached."""
    wanted = f"text/{subtype}"
    return next((one for one in found if one.content_type == wanted and not one.attached), None)


def decoded_size(part: Part) -> int:
    """About how many bytes the part has once decoded."""
    # Base64 in lines of 76: 57 bytes a line of 78.
    return part.size * 57 // 78 if part.encoding == "base64" else part.size


def _walk(node: Any, section: str) -> Iterator[Part]:
    if not isinstance(node, list) or not node:
        return
    if isinstance(node[0], list):
        for number, child in enumerate(node, start=1):
            if not isinstance(child, list):
                break
            yield from _walk(child, f"{section}.{number}" if section else str(number))
        return
    if len(node) >= 7:
        yield _leaf(node, section or "1")


def _leaf(node: list[Any], section: str) -> Part:
    content_type = f"{_word(node[0])}/{_word(node[1])}"
    parameters = _parameters(node[2])
    disposition, given = _disposition(node, content_type)
    name = _filename(given, "filename") or _filename(parameters, "name")
    size = node[6]
    return Part(
        section=section,
        content_type=content_type if content_type != "/" else "application/octet-stream",
        charset=parameters.get("charset", b"").decode("latin-1") or None,
        encoding=_word(node[5]) or "7bit",
        size=int(size) if isinstance(size, bytes) and size.isdigit() else 0,
        filename=name,
        attached=disposition == "attachment"
        or (name is not None and disposition != "inline")
        or not content_type.startswith("text/"),
        flowed=parameters.get("format", b"").lower() == b"flowed",
    )


def _disposition(node: list[Any], content_type: str) -> tuple[str, dict[str, bytes]]:
    # Behind the seven fields of every part come those of its type, then MD5, then the disposition.
    extra = {"text": 1, "message": 3}.get(content_type.partition("/")[0], 0)
    if content_type.startswith("message/") and content_type != "message/rfc822":
        extra = 0
    at = 7 + extra + 1
    found = node[at] if len(node) > at else None
    if isinstance(found, list) and found and isinstance(found[0], bytes):
        return _word(found[0]), _parameters(found[1] if len(found) > 1 else None)
    return "", {}


def _parameters(given: Any) -> dict[str, bytes]:
    if not isinstance(given, list):
        return {}
    pairs = zip(given[::2], given[1::2], strict=False)
    return {_word(name): value for name, value in pairs if isinstance(value, bytes)}


def _filename(parameters: dict[str, bytes], name: str) -> str | None:
    """The file's name, also where it is split and encoded as in RFC 2231."""
    raw: bytes | None = parameters.get(name)
    charset = None
    extended = parameters.get(f"{name}*")
    if extended is None:
        pieces = []
        for number in range(64):
            piece = parameters.get(f"{name}*{number}*") or parameters.get(f"{name}*{number}")
            if piece is None:
                break
            pieces.append(piece)
        if pieces:
            extended = b"".join(pieces) if f"{name}*0*" in parameters else None
            raw = raw or b"".join(pieces)
    if extended is not None:
        charset_name, quote, rest = extended.partition(b"'")
        _, quote2, text = rest.partition(b"'")
        raw = unquote_to_bytes(text) if quote and quote2 else unquote_to_bytes(extended)
        charset = charset_name.decode("latin-1") if quote and quote2 else None
    if raw is None:
        return None
    found = one_line(unencoded(decoded(raw, charset)))
    # A name, not a path: nothing of it may lead anywhere.
    found = found.replace("\\", "/").rpartition("/")[2]
    return shortened(found, _LONGEST_NAME) or None


def _word(value: Any) -> str:
    return value.decode("latin-1").strip().lower() if isinstance(value, bytes) else ""
