"""What leaves a support bundle out: secrets, addresses, names of the customer's own folders."""

import re
from collections.abc import Iterable

from fleetprompt_edge.redaction import masked_for_log

# Wider than an address may be: what only looks like one is masked too.
_ADDRESS = re.compile(r"[^\s\"'<>(),;:\[\]\\]{1,200}@[^\s\"'<>(),;:\[\]\\]{1,253}")
# Everybody has these, so that they say nothing of anybody.
_USUAL = frozenset(
    {"inbox", "sent", "drafts", "trash", "spam", "archive", "starred", "all mail", "scheduled"}
)


class Mask:
    """Masks texts. ``secrets`` and ``folders`` are replaced wherever they stand, longest first.

    ``home``: the user's home folder, which becomes ``~``.
    """

    def __init__(self, secrets: Iterable[str], folders: Iterable[str], home: str) -> None:
        self._home = home.rstrip("/")
        self._secrets = tuple(sorted({one for one in secrets if one}, key=len, reverse=True))
        private = {one for one in folders if one.lower() not in _USUAL and not one.startswith("\\")}
        numbered = enumerate(sorted(private, key=lambda name: (-len(name), name)), start=1)
        self._folders = {name: f"[folder {number}]" for number, name in numbered}

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self._home:
            text = text.replace(self._home, "~")
        for name, mask in self._folders.items():
            text = text.replace(name, mask)
        return _ADDRESS.sub("[address]", masked_for_log(text, self._secrets))

    def value(self, value: object) -> object:
        """The same for everything in a JSON value, names of members included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(name)): self.value(child) for name, child in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(child) for child in value]
        return value
