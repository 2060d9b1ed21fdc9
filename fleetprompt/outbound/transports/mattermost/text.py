"""Text from outside, made harmless for a Mattermost message (contract A4, traps 14 and 15).

Before a post is stored the server turns ``<!here>`` into ``@here`` and ``<a|b>`` into a link,
across table cells too, and afterwards it looks for mentions outside code. So nothing made here
holds a raw ``<``, and after each ``@`` stands a zero-width space, which ends a mention's name.
"""

import re
import unicodedata

_ZERO_WIDTH_SPACE = "\u200b"
_ZERO_WIDTH_JOINER = "\u200d"
_NOTHING = "—"

# Inside code neither a backslash nor an entity works, so signs that look alike stand in.
_IN_CODE = str.maketrans({"<": "‹", ">": "›", "@": f"@{_ZERO_WIDTH_SPACE}"})
_IN_TEXT = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": f"@{_ZERO_WIDTH_SPACE}"}
    | {sign: f"\\{sign}" for sign in "\\`*_~[](){}|#!$"}
)
_LINK_START = re.compile(r"(?i)\b(www)\.|:(?=//)")
_LIST_START = re.compile(r"^(\d*)([-+=.)])")
_SURROGATE = re.compile("[\ud800-\udfff]")


def code_span(text: str, limit: int = 200) -> str:
    """One line of at most ``limit`` runes as a code span; a dash for an empty text.

    Put something between two spans: backticks that touch become one longer run.
    """
    return _fenced(_one_line(text, limit))


def table_cell(text: str, limit: int = 80) -> str:
    """A code span that cannot end its cell: no parser of tables finds a ``|`` in it."""
    return _fenced(_one_line(text, limit).replace("|", "¦"))


def plain(text: str, limit: int = 200) -> str:
    """One line of at most ``limit`` runes as text: no markup, link, image or mention works."""
    line = _one_line(text, limit)
    if not line:
        return _NOTHING
    line = _LIST_START.sub(r"\1\\\2", line.translate(_IN_TEXT))
    return _LINK_START.sub(lambda match: _broken(match[0]), line)


def _broken(start: str) -> str:
    """``www.`` and ``:`` before slashes, with the zero-width space where the link would begin."""
    return f":{_ZERO_WIDTH_SPACE}" if start == ":" else f"{start[:-1]}{_ZERO_WIDTH_SPACE}."


def _fenced(line: str) -> str:
    if not line:
        return _NOTHING
    line = line.translate(_IN_CODE)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _one_line(text: str, limit: int) -> str:
    """Without control and formatting characters, so that bidirectional overrides go too."""
    # What follows the part that can be shown is dropped first: errors may be megabytes.
    kept = "".join(_visible(char) for char in _SURROGATE.sub("\ufffd", text[: 8 * limit]))
    line = " ".join(kept.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    if category == "Cf" and char != _ZERO_WIDTH_JOINER:
        return ""
    return char
