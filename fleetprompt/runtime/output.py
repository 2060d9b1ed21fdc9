"""The logs of several processes as one stream: readable for people, JSON lines for programs."""

import contextlib
import json
import re
import threading
from datetime import UTC, datetime
from typing import TextIO

from fleetprompt.secrets import redact

_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92")
# CSI and OSC sequences, then whatever else could move a terminal's cursor or change its state.
_TERMINAL_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class MergedLog:
    """Writes each line with the name of its process before it, one line at a time.

    ``as_json`` gives one JSON object a line: objects pass through with ``process`` added, other
    lines become ``{"at", "process", "message"}``. Text gets a coloured name on a terminal. Secrets
    are masked, and what could control a terminal is dropped, whoever wrote it.
    """

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json
        self._colour = not as_json and stream.isatty()
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}

    def __call__(self, name: str, line: str) -> None:
        """Write one line of process ``name``."""
        clean = redact(_TERMINAL_CONTROL.sub("", line))
        with self._lock:
            rendered = self._json(name, clean) if self._as_json else f"{self._prefix(name)}{clean}"
            # A closed terminal or a reader that left must not keep processes from being stopped.
            with contextlib.suppress(OSError):
                self._stream.write(f"{rendered}\n")
                self._stream.flush()

    def _prefix(self, name: str) -> str:
        if name not in self._names:
            colour = _COLOURS[len(self._names) % len(_COLOURS)]
            padded = f"{name:<12} | "
            self._names[name] = f"\x1b[{colour}m{padded}\x1b[0m" if self._colour else padded
        return self._names[name]

    @staticmethod
    def _json(name: str, line: str) -> str:
        if line.startswith("{"):
            try:
                return json.dumps({**json.loads(line), "process": name}, ensure_ascii=False)
            except ValueError:
                pass
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at, "process": name, "message": line}, ensure_ascii=False)
