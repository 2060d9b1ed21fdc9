"""What the server does to a text before it is stored, and whom it then tells (contract A3, A4)."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

_LINK = {
    "old": re.compile(r"<([^<|]+)\|([^>]+)>"),
    "new": re.compile(r"<([^\n<|>]+)\|([^|\n>]+)>"),
}
_ANNOUNCEMENTS = {"<!channel>": "@channel", "<!here>": "@here", "<!all>": "@all"}
_USER_ID = re.compile(r"<@([a-zA-Z0-9]+)>")
_EVERYBODY = frozenset({"@here", "@channel", "@all"})
_USERNAME = re.compile(r"[a-z0-9._-]+")

# The server's own parser knows neither emphasis nor tables nor headings, so their text is scanned
# with the marks still in it.
_BLOCKS = ["code", "fence", "blockquote", "list", "reference"]
_INLINES = ["backticks", "escape", "entity", "link", "image", "autolink", "newline"]
_PARSER = MarkdownIt("zero", {"html": False}).enable([*_BLOCKS, *_INLINES])


def rewrite(text: str, usernames: dict[str, str], generation: Literal["old", "new"]) -> str:
    """Slack's notation turned into Mattermost's; ``usernames`` maps user ids to names."""
    for notation, mention in _ANNOUNCEMENTS.items():
        text = text.replace(notation, mention)
    text = _USER_ID.sub(
        lambda match: f"@{usernames[match[1]]}" if match[1] in usernames else match[0], text
    )
    return _LINK[generation].sub(r"[\2](\1)", text)


@dataclass(frozen=True)
class Mentions:
    """Who is told: ``everybody`` and ``users`` get a ping, ``possible`` names look like users."""

    everybody: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()

    @property
    def pings(self) -> list[str]:
        """The mentions that notify somebody, sorted."""
        return sorted({*self.everybody, *self.users})


def find_mentions(texts: Collection[str], usernames: Collection[str]) -> Mentions:
    """Mentions in a post's message and its attachments' ``pretext`` and ``text``."""
    everybody: set[str] = set()
    users: set[str] = set()
    possible: set[str] = set()
    known = {f"@{name}" for name in usernames}

    def check(word: str) -> bool:
        lowered = word.lower()
        if lowered in _EVERYBODY:
            everybody.add(lowered)
        elif lowered in known:
            users.add(lowered)
        else:
            return False
        return True

    def consider(word: str) -> None:
        if "@" in word and _USERNAME.fullmatch(word[1:].lower()):
            possible.add(word[1:].lower())

    for run in (run for text in texts for run in _plain_runs(text)):
        for word in _words(run):
            if word[0] == ":" and word[-1] == ":":
                continue
            word = word.lstrip(":.-_")
            if check(word) or any(check(shorter) for shorter in _without_suffix(word)):
                continue
            if "@" in word:
                consider(word)
            for part in re.split(r"[.:-]", word):
                if part and not check(part):
                    consider(part)
    return Mentions(tuple(sorted(everybody)), tuple(sorted(users)), tuple(sorted(possible)))


def _plain_runs(text: str) -> Iterator[str]:
    """Texts outside code; a run ends at anything that is not text, such as a line break."""
    for block in _PARSER.parse(text):
        run = ""
        for token in _inline(block):
            if token.type in ("text", "text_special"):
                run += token.content
            else:
                yield run
                run = ""
        yield run


def _inline(token: Token) -> Iterator[Token]:
    for child in token.children or ():
        if child.type == "image":
            yield child
            yield from _inline(child)
        else:
            yield child


def _words(run: str) -> list[str]:
    kept = "".join(
        char if char in ":.-_@" or unicodedata.category(char)[0] in "LN" else " " for char in run
    )
    return kept.split()


def _without_suffix(word: str) -> Iterator[str]:
    while word and word[-1] in ".-:_":
        word = word[:-1]
        yield word
