"""Every metric, by name: the one list that counting, the scrape, the documents and the rules share.

Names and units follow OpenMetrics: a base unit at the end of the name, ``_total`` added to counters
in the exposition. Label values come from closed sets; tenants, ids and addresses are never labels
(research/platform.md, A6). ``docs/reference/metrics.md`` lists each, and a test fails if one is missing.
"""

from dataclasses import dataclass
from typing import Literal

# Seconds. A warm start takes milliseconds, a cold one seconds, a retry's turn minutes.
_DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. ``buckets`` are a histogram's upper bounds, without the infinite one.

    A histogram whose bounds change needs another name: what was counted before stays in the table.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


ATTEMPTS_ENDED = Metric(
    "fleetprompt_directive_attempts_ended",
    "counter",
    "Attempts at directives that ended, by the directive's state after it and the failure's class.",
    ("type", "target", "state", "error"),
)
START_DELAY = Metric(
    "fleetprompt_directive_start_delay_seconds",
    "histogram",
    "From the time a directive was due to the time it was claimed.",
    ("type", "target"),
    "seconds",
    _DELAYS,
)
ATTEMPT_DURATION = Metric(
    "fleetprompt_directive_attempt_duration_seconds",
    "histogram",
    "How long the platform's handlers ran, for each attempt.",
    ("type",),
    "seconds",
    _DURATIONS,
)
LEASES_RESCUED = Metric(
    "fleetprompt_directive_leases_rescued",
    "counter",
    "Directives found under a lease that had run out: made pending again, or given up as unknown.",
    ("outcome",),
)
STALE_REPORTS = Metric(
    "fleetprompt_directive_stale_reports",
    "counter",
    "Ends of attempts that were refused because the attempt had lost its lease.",
)
LEASES_LOST = Metric(
    "fleetprompt_directive_leases_lost",
    "counter",
    "Attempts that a heartbeat found without their lease and stopped; cancelled ones are among them.",
)
HEARTBEAT_FAILURES = Metric(
    "fleetprompt_directive_heartbeat_failures",
    "counter",
    "Heartbeats that could not be written.",
)
LISTENER_LOSSES = Metric(
    "fleetprompt_listener_losses",
    "counter",
    "Listening connections that were lost or could not be made; each is tried again.",
    ("channel",),
)
SIGNALS_STORED = Metric(
    "fleetprompt_signals_stored",
    "counter",
    "Signals that were answered after a commit.",
    ("result",),
)
INGEST_REFUSED = Metric(
    "fleetprompt_ingest_refused",
    "counter",
    "Requests with signals that were refused whole, and signals refused one by one, by problem.",
    ("reason",),
)
FLUSH_ROWS = Metric(
    "fleetprompt_ingest_flush_rows",
    "histogram",
    "Signals in one commit.",
    (),
    "rows",
    _ROWS,
)
FLUSH_DURATION = Metric(
    "fleetprompt_ingest_flush_duration_seconds",
    "histogram",
    "From a flush's begin to the answer to everybody in it.",
    (),
    "seconds",
    _DURATIONS,
)
OUTBOUND_MESSAGES = Metric(
    "fleetprompt_outbound_messages",
    "counter",
    "Attempts to send a message, by what the ledger says of it and the failure's class.",
    ("outcome", "error"),
)
OUTBOUND_DURATION = Metric(
    "fleetprompt_outbound_request_duration_seconds",
    "histogram",
    "Requests to tenant-supplied addresses, by status class or by how they failed.",
    ("result",),
    "seconds",
    _DURATIONS,
)
HTTP_DURATION = Metric(
    "fleetprompt_http_request_duration_seconds",
    "histogram",
    "Requests to the API, by route template and status class.",
    ("method", "route", "status"),
    "seconds",
    _DURATIONS,
)

DIRECTIVES_DUE = Metric(
    "fleetprompt_directives_due",
    "gauge",
    "Directives that are due and wait to be claimed, those whose lease ran out among them.",
    ("type", "target"),
)
DIRECTIVES_LATER = Metric(
    "fleetprompt_directives_later",
    "gauge",
    "Directives whose time has not come: scheduled, or waiting for a retry.",
    ("type", "target"),
)
OLDEST_DUE = Metric(
    "fleetprompt_directive_oldest_due_seconds",
    "gauge",
    "How long the oldest due directive has waited; 0 when none is due.",
    ("type", "target"),
    "seconds",
)
IN_FLIGHT = Metric(
    "fleetprompt_directives_in_flight",
    "gauge",
    "Directives that run under a lease, or that a worker is about to claim.",
    ("type", "target"),
)
PROCESSES = Metric(
    "fleetprompt_processes",
    "gauge",
    "Processes that have reported within the last 30 seconds.",
    ("role",),
)
LISTENERS = Metric(
    "fleetprompt_listeners",
    "gauge",
    "Listening connections of live processes, by whether they are up.",
    ("role", "channel", "state"),
)
LAST_NOTICE = Metric(
    "fleetprompt_listener_last_notice_seconds",
    "gauge",
    "How long ago any live process last heard a notice; absent where none was heard yet.",
    ("role", "channel"),
    "seconds",
)
SIGNALS_WAITING = Metric(
    "fleetprompt_ingest_waiting_signals",
    "gauge",
    "Signals that wait for a commit, in all processes of the API as they last reported.",
)
APPROVALS_WAITING = Metric(
    "fleetprompt_approvals_waiting",
    "gauge",
    "Approvals that wait for somebody's word.",
    ("type",),
)
OLDEST_APPROVAL = Metric(
    "fleetprompt_approval_oldest_waiting_seconds",
    "gauge",
    "How long the oldest of them has waited; 0 when none does.",
    ("type",),
    "seconds",
)
SLOTS_DUE = Metric(
    "fleetprompt_digest_slots_due",
    "gauge",
    "Slots that are due and not asked for yet.",
)
OLDEST_SLOT = Metric(
    "fleetprompt_digest_slot_oldest_due_seconds",
    "gauge",
    "How late the oldest of them is; 0 when none is due.",
    (),
    "seconds",
)
SLOTS_SETTLED = Metric(
    "fleetprompt_digest_slots_settled_last_day",
    "gauge",
    "Slots that were settled within the last 24 hours, by how.",
    ("state",),
)
OLDEST_STALE_DAY = Metric(
    "fleetprompt_lake_oldest_stale_seconds",
    "gauge",
    "How long the oldest signal has waited to be seen in the lake; 0 when none does.",
    (),
    "seconds",
)
DATABASE_UP = Metric(
    "fleetprompt_database_up",
    "gauge",
    "Whether PostgreSQL answered this scrape. While it is 0 counters stand and other gauges are absent.",
)

METRICS: dict[str, Metric] = {
    found.name: found for found in tuple(globals().values()) if isinstance(found, Metric)
}
