"""Structured logs: one JSON object a line for programs, one readable line for people.

Secrets never reach a log: the HTTP client's own loggers are silenced below WARNING because they
print whole URLs, and every record passes a filter that masks the known shapes of secrets.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from fleetprompt.secrets import redact

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {k: v for k, v in record.__dict__.items() if k not in _STANDARD}


class RedactingFilter(logging.Filter):
    """Masks secrets in the message, its arguments, extra fields and exception text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; never drops one."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a filter that raises would end the work that is logged
            message = str(record.msg)
        record.msg = redact(message)
        record.args = ()
        for key, value in _extra(record).items():
            record.__dict__[key] = _redacted(value)
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _redacted(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact(str(name)): _redacted(child) for name, child in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(child) for child in value]
    return redact(str(value))


class JsonFormatter(logging.Formatter):
    """``{"at", "level", "logger", "message", …extra, "exception"}`` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """``12:03:04 INFO  fleetprompt.signals  message  key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = "".join(f"  {k}={v}" for k, v in _extra(record).items())
        text = f"{at} {record.levelname:<7} {record.name}  {record.getMessage()}{extra}"
        return f"{text}\n{record.exc_text}" if record.exc_text else text


def configure(
    level: str = "INFO", style: Literal["auto", "text", "json"] = "auto", stream: Any = None
) -> None:
    """Send all logs of this process to ``stream`` (standard error) in one style."""
    stream = stream or sys.stderr
    text = style == "text" or (style == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(RedactingFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The pool is SQLAlchemy's, whose loggers keep to warnings by themselves under their own names.
    for name in ("httpx", "httpcore", "hpack", "fleetprompt.db.pool.TenantPool"):
        logging.getLogger(name).setLevel(logging.WARNING)
