"""What operators read on an asset's page: numbers, tables and small pictures, never content."""

from collections.abc import Iterable, Sequence
from datetime import date
from urllib.parse import quote

import dagster as dg

from fleetprompt.lake.columns import Table
from fleetprompt.lake.days import CountsReport, DayReport, utc_day
from fleetprompt.settings import Settings
from fleetprompt_dagster.pictures import hours_picture

Metadata = dict[str, dg.MetadataValue]

_KINDS = {
    "string": "string",
    "timestamp": "timestamp with time zone",
    "bigint": "bigint",
    "double": "double",
}


def column_schema(table: Table) -> dg.MetadataValue:
    """The table's columns with their descriptions."""
    return dg.MetadataValue.table_schema(
        dg.TableSchema(
            [
                dg.TableColumn(
                    column.name,
                    _KINDS[column.kind],
                    description=column.description,
                    constraints=dg.TableColumnConstraints(nullable=column.nullable),
                )
                for column in table.columns
            ]
        )
    )


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; what cells hold cannot break out of them."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def utc_window(day: date) -> dg.MetadataValue:
    """The exact stretch of time of a UTC day, half open."""
    start, end = utc_day(day)
    return dg.MetadataValue.text(f"{start.isoformat()} to {end.isoformat()}")


def signals_metadata(report: DayReport) -> Metadata:
    """Of one tenant's day of signals."""
    found: Metadata = {
        "dagster/row_count": dg.MetadataValue.int(report.rows),
        "late_rows": dg.MetadataValue.int(report.late_rows),
        "failures": dg.MetadataValue.int(sum(report.failures_by_hour)),
        "cost_usd": dg.MetadataValue.float(round(sum(report.cost_by_hour), 6)),
        "bytes": dg.MetadataValue.int(report.bytes),
        "utc_window": utc_window(report.day),
        "file": dg.MetadataValue.path(str(report.path)),
    }
    if report.rows:
        top = list(report.by_type.items())[:10]
        found["top_types"] = dg.MetadataValue.md(markdown_table(["type", "signals"], top))
        found["by_hour"] = dg.MetadataValue.md(hours_picture(report.by_hour))
    for name, by_hour, what in (
        ("failures_by_hour", report.failures_by_hour, "failures"),
        ("cost_by_hour", report.cost_by_hour, "dollars of cost"),
    ):
        if any(by_hour):
            found[name] = dg.MetadataValue.md(hours_picture(by_hour, what))
    return found


def counts_metadata(report: CountsReport) -> Metadata:
    """Of one tenant's day of counts."""
    found: Metadata = {
        "dagster/row_count": dg.MetadataValue.int(report.rows),
        "signals": dg.MetadataValue.int(report.signals),
        "bytes": dg.MetadataValue.int(report.bytes),
        "utc_window": utc_window(report.day),
        "file": dg.MetadataValue.path(str(report.path)),
    }
    if report.rows:
        found["preview"] = dg.MetadataValue.md(
            markdown_table(["type", "source", "signals"], report.preview)
        )
    return found


def timeline_link(settings: Settings, correlation_id: str) -> dg.MetadataValue:
    """The console's page of everything under a correlation id, as a link."""
    address = f"{settings.api_url}/console/timeline/{quote(correlation_id, safe='')}"
    return dg.MetadataValue.url(address)


def run_link(settings: Settings, run_id: str) -> dg.MetadataValue:
    """A Dagster run's page, as a link."""
    return dg.MetadataValue.url(f"{settings.dagster_base_url}/runs/{quote(run_id, safe='')}")
