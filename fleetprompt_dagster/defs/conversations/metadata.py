"""What operators read of a tenant's day of chat: figures, the days before it in a table, and a picture."""

import base64
from collections.abc import Sequence

import dagster as dg

from fleetprompt.lake.conversations import ConversationsReport, DayFigures
from fleetprompt_dagster.metadata import Metadata, markdown_table, utc_window
from fleetprompt_dagster.pictures import bar_chart

_HEADS = (
    *("day", "began", "ended", "visitors' messages", "replies"),
    *("escalations", "first response (median)"),
)


def conversations_metadata(report: ConversationsReport) -> Metadata:
    """Of one tenant's day of conversations."""
    figures = report.figures
    found: Metadata = {
        "dagster/row_count": dg.MetadataValue.int(report.rows),
        "messages": dg.MetadataValue.int(figures.visitor_messages + figures.replies),
        "escalations": dg.MetadataValue.int(figures.escalations),
        "bytes": dg.MetadataValue.int(report.bytes),
        "utc_window": utc_window(report.day),
        "file": dg.MetadataValue.path(str(report.path)),
    }
    if figures.first_response_ms is not None:
        seconds = figures.first_response_ms / 1000
        found["first_response_seconds"] = dg.MetadataValue.float(seconds)
    if report.rows:
        table = markdown_table(_HEADS, [_row(one) for one in report.trend])
        found["by_day"] = dg.MetadataValue.md(f"{_picture(report.trend)}\n\n{table}")
    return found


def _row(day: DayFigures) -> tuple[object, ...]:
    return (
        *(day.day, day.started, day.ended, day.visitor_messages, day.replies),
        *(day.escalations, _duration(day.first_response_ms)),
    )


def _duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "–"
    seconds = round(milliseconds / 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours = seconds // 60, seconds // 3600
    return f"{minutes} min" if minutes < 60 else f"{hours} h {minutes % 60} min"


def _picture(trend: Sequence[DayFigures]) -> str:
    """Visitors' messages by day; the words say what the picture shows."""
    counts = [one.visitor_messages for one in trend]
    most = max(trend, key=lambda one: one.visitor_messages)
    told = (
        f"visitors' messages by day, {trend[0].day} to {trend[-1].day}; "
        f"most on {most.day}, {most.visitor_messages}"
    )
    picture = base64.b64encode(bar_chart(counts)).decode()
    return f"![{told}](data:image/png;base64,{picture})\n\n{told}"
