"""Header fields, raw and as text, however broken the mail is."""

import re
from email.utils import getaddresses

from fleetprompt_edge.mail.text import clean, decoded, one_line, shortened, unencoded

LONGEST_VALUE = 2_000  # characters of one header that leave this machine
MOST_ADDRESSES = 200
_PLAIN = re.compile(r"[^\s<>()\[\],;:\"\\@]{1,64}@[^\s<>()\[\],;:\"\\@]{1,255}")


class Headers:
    """The fields of a header by lower-case name; what was first counts where a name comes twice."""

    def __init__(self, raw: bytes) -> None:
        self._fields: dict[str, list[bytes]] = {}
        name = ""
        for line in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
            if line[:1] in (b" ", b"\t"):
                if name:
                    self._fields[name][-1] += b" " + line.strip()
                continue
            before, colon, value = line.partition(b":")
            name = before.strip().decode("latin-1").lower() if colon else ""
            if name:
                self._fields.setdefault(name, []).append(value.strip())

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields

    def raw(self, name: str) -> bytes | None:
        """The unfolded bytes of a field."""
        found = self._fields.get(name.lower())
        return found[0] if found else None

    def text(self, name: str) -> str | None:
        """A field on one line with its encoded words decoded, cut to ``LONGEST_VALUE``."""
        raw = self.raw(name)
        if raw is None:
            return None
        return shortened(one_line(unencoded(decoded(raw, None))), LONGEST_VALUE)

    def addresses(self, name: str) -> list[str]:
        """The mail addresses of all fields of that name, without display names, in order, once each."""
        found: dict[str, None] = {}
        for raw in self._fields.get(name.lower(), []):
            # Display names may hold anything; encoded words are left alone, so that none of them
            # turns into an address.
            text = clean(decoded(raw, None)).replace("\n", " ")
            for address in _addresses(text):
                if "@" in address and len(address) <= 320:
                    found.setdefault(one_line(address))
                    if len(found) == MOST_ADDRESSES:
                        return list(found)
        return list(found)

    def message_id(self) -> str | None:
        """Message-ID with its brackets, on one line without spaces, at most 998 characters."""
        raw = self.raw("message-id")
        if raw is None:
            return None
        text = "".join(one_line(decoded(raw, None)).split())
        return text[:998] or None

    def references(self, name: str) -> list[str]:
        """Message-IDs that a field names, without those that Bridge puts in (trap 16)."""
        text = decoded(self.raw(name) or b"", None)
        found = [one for one in clean(text).split() if one.startswith("<") and one.endswith(">")]
        return [one for one in found if not one.lower().endswith("@protonmail.internalid>")]


def _addresses(text: str) -> list[str]:
    try:
        return [address for _, address in getaddresses([text])]
    except (RecursionError, ValueError, IndexError):
        # Comments within comments, deeper than the parser can follow.
        return _PLAIN.findall(text)
