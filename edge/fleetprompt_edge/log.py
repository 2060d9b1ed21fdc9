"""Local logs: one JSON object a line, without secrets, without mail.

Debug mode shows more of what the connector does. What other libraries would say at that level is
never shown: they print whole lines of mail and whole addresses.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from fleetprompt_edge.clock import stamp
from fleetprompt_edge.redaction import masked_for_log

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


def start(
    connector_id: str, secrets: tuple[str, ...], *, debug: bool, stream: TextIO | None = None
) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter(connector_id, secrets))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


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
