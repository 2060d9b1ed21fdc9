"""Mail that machines wrote: bounces, complaints, automatic replies."""

import re
from typing import Any

from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.text import decoded, one_line, shortened

CLASSIFYING_HEADERS = (
    "Content-Type",
    "Auto-Submitted",
    "Precedence",
    "X-Autoreply",
    "X-Autorespond",
    "X-Auto-Response-Suppress",
    "X-Failed-Recipients",
    "Return-Path",
    "List-Id",
)
_REPORT_TYPE = re.compile(r"report-type\s*=\s*\"?([\w-]+)", re.IGNORECASE)
_STATUS = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})\b")


def classified(headers: Headers) -> dict[str, Any] | None:
    """``{"kind": "bounce" | "complaint" | "auto_reply" | "list"}``, or None for a person's mail."""
    content_type = (headers.text("content-type") or "").lower()
    found = (
        _REPORT_TYPE.search(content_type) if content_type.startswith("multipart/report") else None
    )
    if found and found[1] == "feedback-report":
        return {"kind": "complaint"}
    if (found and found[1] == "delivery-status") or "x-failed-recipients" in headers:
        return {"kind": "bounce"}
    submitted = (headers.text("auto-submitted") or "no").partition(";")[0].strip().lower()
    precedence = (headers.text("precedence") or "").lower()
    if submitted != "no" or "x-autoreply" in headers or "x-autorespond" in headers:
        return {"kind": "auto_reply"}
    if precedence == "auto_reply":
        return {"kind": "auto_reply"}
    if "list-id" in headers or precedence in ("list", "bulk"):
        return {"kind": "list"}
    return None


def delivery_status(raw: bytes) -> dict[str, str]:
    """Of a ``message/delivery-status`` part (RFC 3464) what failed: ``action``, ``status``,
    ``recipient``, each where given; texts of the other server are left out."""
    found: dict[str, str] = {}
    for block in re.split(rb"\r?\n\r?\n", raw):
        fields = Headers(block)
        for name, key in (("action", "action"), ("status", "status")):
            value = fields.text(name)
            if value and key not in found:
                found[key] = shortened(one_line(value).lower(), 64)
        recipient = fields.raw("final-recipient") or fields.raw("original-recipient")
        if recipient and "recipient" not in found:
            address = one_line(decoded(recipient.partition(b";")[2], None)).strip("<>")
            found["recipient"] = shortened(address, 320)
    if "status" in found and not _STATUS.match(found["status"]):
        del found["status"]
    return found
