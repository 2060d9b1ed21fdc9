"""Every table of the lake, column by column: the one place that says what each holds.

The Parquet schema, DuckDB's empty views and the schema that the Dagster UI shows are all made from
it. ``tenant`` and ``day`` are not in the files: the folders say them, and readers add them as columns.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["string", "timestamp", "bigint", "double"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its kind, whether it may be empty, and what it holds.

    ``source`` names the JSON column whose field of the same name it holds, where that has its type.
    ``distinct`` says that nearly every row has a value of its own.
    """

    name: str
    kind: Kind
    nullable: bool
    description: str
    source: Literal["data", "metadata"] | None = None
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake, in the order of its columns."""

    name: str
    description: str
    columns: tuple[Column, ...]


SIGNALS = Table(
    "signals",
    "What happened to a tenant, one row a signal, by the UTC day on which it occurred.",
    (
        Column("id", "string", False, "The signal's UUIDv7, in text.", distinct=True),
        Column("type", "string", False, "Dotted type, such as `email.inbound.received`."),
        Column("source", "string", False, "Who produced it, such as `edge:proton_mail`."),
        Column("occurred_at", "timestamp", False, "When it happened, by its producer; UTC."),
        Column("subject_type", "string", True, "Kind of thing that it is about."),
        Column("subject_id", "string", True, "Id of the thing that it is about."),
        Column("data", "string", False, "Its content: a JSON object, in text.", distinct=True),
        Column("metadata", "string", False, "Its metadata: a JSON object, in text."),
        Column("correlation_id", "string", True, "What belongs together has the same one."),
        Column("causation_id", "string", True, "What it was caused by."),
        Column(
            "dedupe_key", "string", True, "Its producer's key, unique in the tenant.", distinct=True
        ),
        Column(
            "source_event_id", "string", True, "The producer's own id of the event.", distinct=True
        ),
        Column("inserted_at", "timestamp", False, "When PostgreSQL stored it; UTC."),
        Column("connector_id", "string", True, "Connector that it came through.", "metadata"),
        Column("account_id", "string", True, "Account that it is about.", "metadata"),
        Column("execution_id", "string", True, "Execution that it tells of.", "data"),
        Column("agent", "string", True, "Agent whose execution it tells of.", "data"),
        Column("error_kind", "string", True, "Why something failed: `auth`, `network`, …", "data"),
        Column("cost_usd", "double", True, "What it cost, in US dollars.", "data"),
        Column("tokens_in", "bigint", True, "Tokens that a language model was given.", "data"),
        Column("tokens_out", "bigint", True, "Tokens that a language model made.", "data"),
        Column("duration_seconds", "double", True, "How long it took.", "data"),
    ),
)

DAILY_COUNTS = Table(
    "daily_counts",
    "How many signals of each type and source a tenant had on a UTC day.",
    (
        Column("type", "string", False, "Dotted type of the signals counted."),
        Column("source", "string", False, "Source of the signals counted."),
        Column("signals", "bigint", False, "How many there were."),
        Column("first_occurred_at", "timestamp", False, "When the first of them happened; UTC."),
        Column("last_occurred_at", "timestamp", False, "When the last of them happened; UTC."),
    ),
)

CONVERSATION_DAYS = Table(
    "conversation_days",
    "What happened in a tenant's website chat on a UTC day, one row a conversation.",
    (
        Column(
            "conversation_id", "string", False, "The conversation's id, in text.", distinct=True
        ),
        Column("site_id", "string", False, "The website that it is on."),
        Column("started", "bigint", False, "1 on the day on which it began, else 0."),
        Column("ended", "bigint", False, "1 on the day on which it ended, else 0."),
        Column("visitor_messages", "bigint", False, "Messages of the visitor on the day."),
        Column("replies", "bigint", False, "Messages of the team on the day."),
        Column(
            "first_response_ms",
            "bigint",
            True,
            "Milliseconds from the visitor's first message to the team's first after it, on the day of "
            "the latter.",
        ),
        Column("escalations", "bigint", False, "How often it was handed to the team on the day."),
    ),
)

TABLES = (SIGNALS, DAILY_COUNTS, CONVERSATION_DAYS)


def parquet_schema(table: Table) -> "pa.Schema":
    """The fixed schema of the table's files, descriptions included as field metadata."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "bigint": pa.int64(),
        "double": pa.float64(),
    }
    return pa.schema(
        [
            pa.field(
                column.name,
                kinds[column.kind],
                nullable=column.nullable,
                metadata={"description": column.description},
            )
            for column in table.columns
        ]
    )


def parquet_options(table: Table, schema: "pa.Schema") -> dict[str, Any]:
    """How the table's files with this schema are compressed and encoded, for pyarrow's writers.

    Times lie close together, so that their differences take a byte or two and are read three times as fast
    as the times. A dictionary of values that do not come twice would only be tried and thrown away.
    """
    times = [column.name for column in table.columns if column.kind == "timestamp"]
    alone = {*times, *(column.name for column in table.columns if column.distinct)}
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in alone],
        "column_encoding": dict.fromkeys(times, "DELTA_BINARY_PACKED"),
    }
