"""Local logs: one JSON object a line, without secrets, without mail.

Debug mode shows more of what the connector does. What other libraries would say at that level is
never shown: they print whole lines of mail and whole addresses.
"""

import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from fleetprompt_edge.clock import stamp
from fleetprompt_edge.redaction import masked_for_log

LOG_FILE = "connector.log"
_LOG_BYTES = 1_000_000
_LOUD = ("imapclient", "imaplib", "httpx", "httpcore", "keyring", "asyncio")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

logger = logging.getLogger("fleetprompt_edge")


class Formatter(logging.Formatter):
    """``{"at", "level", "message", "connector_id", …, "exception"}``; the given secrets are masked."""

    def __init__(self, connector_id: str, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._connector_id = connector_id
        self._secrets = tuple(one for one in secrets if one)

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, Any] = {
            "at": stamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "connector_id": self._connector_id,
            "thread": record.threadName,
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            # Where it happened, not what it was about: a text may hold a mail or a password.
            line["exception"] = _trace(record)
        # Before it is JSON, whose escapes would hide a secret that holds a quote.
        return json.dumps(self._masked(line), ensure_ascii=False)

    def _masked(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {name: self._masked(child) for name, child in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(child) for child in value]
        return masked_for_log(str(value), self._secrets)


class LogFile(RotatingFileHandler):
    """The newest lines in a file that only its owner can read; what cannot be written is left out."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def close(self) -> None:
        """Close it, though the last lines may not fit."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """A full disk must not stop the mail, and standard error has the line already."""


def start(
    connector_id: str,
    secrets: tuple[str, ...],
    *,
    debug: bool,
    stream: TextIO | None = None,
    folder: Path | None = None,
) -> None:
    """Log to standard error and, with ``folder``, the newest 1 to 2 MB to ``connector.log`` there."""
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stderr)]
    if folder is not None:
        handlers.append(LogFile(folder / LOG_FILE, maxBytes=_LOG_BYTES, backupCount=1, delay=True))
    for one in handlers:
        one.setFormatter(Formatter(connector_id, secrets))
    for former in logger.handlers:
        former.close()
    logger.handlers[:] = handlers
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


def newest_lines(folder: Path, most: int) -> list[str]:
    """The newest lines of the log file, oldest first."""
    lines: list[str] = []
    for name in (f"{LOG_FILE}.1", LOG_FILE):
        try:
            lines += (folder / name).read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            continue
    return lines[-most:]


def _trace(record: logging.LogRecord) -> list[str]:
    import traceback

    found: list[str] = []
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and len(found) < 40:
        found.append(type(error).__name__)
        found += [
            f"{frame.filename.rpartition('fleetprompt_edge')[2]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        error = error.__cause__ or error.__context__
    return found
