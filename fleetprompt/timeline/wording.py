"""A timeline's rows in words: the title, what is shown of the detail, and where to read on."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from fleetprompt.executions.schemas import ExecutionView
from fleetprompt.timeline.schemas import Entry, Kind

Place = tuple[datetime, int, int, str, int]
_RUN_RANK = 7
_PAGES = {
    "signal_id": "/api/v1/signals/",
    "directive_id": "/api/v1/directives/",
    "execution_id": "/api/v1/executions/",
    "replay_id": "/api/v1/replays/",
    "installation_id": "/api/v1/installations/",
}
_OWN = {
    "signal": "signal_id",
    "directive": "directive_id",
    "execution": "execution_id",
    "replay": "replay_id",
}


def place_of(row: Any) -> Place:
    """Where a row stands: by time, then kind; the rest only makes the order the same every time."""
    return (row.at, row.rank, row.step, str(row.id), row.line or 0)


def entry_of(row: Any) -> Entry:
    """One row of the gathering statement as it is answered."""
    detail: dict[str, Any] = {
        name: value for name, value in (row.detail or {}).items() if value is not None
    }
    title = _TITLES[row.kind](row.moment, detail)
    detail.pop("run_id", None)
    if "expires_at" in detail:  # PostgreSQL writes it in the zone of its session
        expires_at = datetime.fromisoformat(detail["expires_at"]).astimezone(UTC)
        detail["expires_at"] = expires_at.isoformat().replace("+00:00", "Z")
    if row.kind == "signal" and "data" not in detail:
        detail["data_left_out"] = True
    kind: Kind = "approval" if row.kind == "decision" else row.kind
    return Entry(
        at=row.at,
        kind=kind,
        id=str(row.line if row.kind == "log" else row.id),
        title=title,
        detail={"correlation_id": row.correlation_id, **detail},
        links=_links(row.kind, str(row.id), detail),
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of an execution that agents report, in the shape of a gathered row."""

    id: UUID
    at: datetime
    step: int
    moment: str
    correlation_id: str | None
    causation_id: str | None
    detail: dict[str, Any]
    rank: int = 4
    kind: str = "execution"
    line: None = None


def moments_of(told: ExecutionView) -> list[Moment]:
    """The start and the end of a reported execution, as far as they are known."""
    detail = told.model_dump(
        mode="json",
        exclude_none=True,
        include={
            *("kind", "state", "cost_usd", "tokens_in", "tokens_out", "causation_id"),
            *("error_kind", "error_message", "reported_by"),
        },
    )
    known = ((1, "started", told.started_at), (2, told.state, told.finished_at))
    return [
        Moment(told.id, at, step, moment, told.correlation_id, told.causation_id, detail)
        for step, moment, at in known
        if at is not None
    ]


def run_entries(rows: Iterable[Any], dagster_url: str | None) -> list[tuple[Place, Entry]]:
    """One entry for each Dagster run that a directive, an execution or a run's own signal names.

    It stands where the run is first heard of: an execution's start, or the signal.
    """
    firsts: dict[str, Any] = {}
    for row in sorted(rows, key=place_of):
        run_id = _run_of(row)
        # A directive is asked for before any run takes it.
        if run_id is not None and not (row.kind == "execution" and row.moment == "requested"):
            firsts.setdefault(run_id, row)
    found: list[tuple[Place, Entry]] = []
    for run_id, row in firsts.items():
        entry = Entry(
            at=row.at,
            kind="run",
            id=run_id,
            title=f"Dagster run {run_id}",
            detail={"correlation_id": row.correlation_id, f"{row.kind}_id": str(row.id)},
            links={} if dagster_url is None else {"run": f"{dagster_url}/runs/{quote(run_id, '')}"},
        )
        found.append(((row.at, _RUN_RANK, 0, run_id, 0), entry))
    return found


def _run_of(row: Any) -> str | None:
    detail = row.detail or {}
    if row.kind == "execution":
        return detail.get("dagster_run_id")
    if row.kind == "signal" and detail["type"].startswith("workflow.run."):
        return detail.get("run_id")
    return None


def _links(kind: str, own_id: str, detail: dict[str, Any]) -> dict[str, str]:
    ids = {name: str(detail[name]) for name in _PAGES if name in detail}
    links = {name.removesuffix("_id"): _PAGES[name] + value for name, value in ids.items()}
    if kind in _OWN:
        links = {"self": _PAGES[_OWN[kind]] + own_id, **links}
    return links


def _signal(moment: str, detail: dict[str, Any]) -> str:
    subject = " ".join(
        str(detail[name]) for name in ("subject_type", "subject_id") if name in detail
    )
    about = f" about {subject}" if subject else ""
    return f"{detail['type']} from {detail['source']}{about}"


def _replay(moment: str, detail: dict[str, Any]) -> str:
    what = "live replay" if detail["live"] else "muted replay"
    if moment == "asked":
        return f"{what} asked for by {detail['asked_by']}"
    if moment == "started":
        return f"{what} started: {detail['signals_selected']} signals"
    made = "requested" if detail["live"] else "would_request"
    counts = f"{detail['signals_read']} signals read, {detail[made]} directives {_MADE[made]}"
    return f"{what} {moment}: {counts}{_why(detail)}"


_MADE = {"requested": "requested", "would_request": "would be requested"}


def _directive(moment: str, detail: dict[str, Any]) -> str:
    return f"{detail['type']} asked for by {detail['actor']}"


def _transition(moment: str, detail: dict[str, Any]) -> str:
    start = detail["from"] or "new"
    return f"{detail['type']}: {start} → {detail['to']} by {detail['changed_by']}{_why(detail)}"


def _approval(moment: str, detail: dict[str, Any]) -> str:
    what = f"approval of {detail['type']}, version {detail['version']}"
    if moment == "waiting":
        return f"{what}: asked for by {detail['proposed_by']}"
    by = f" by {detail['settled_by']}" if "settled_by" in detail else ""
    return f"{what}: {moment}{by}"


def _decision(moment: str, detail: dict[str, Any]) -> str:
    word = "approved" if detail["decision"] == "approve" else "rejected"
    return f"approval of {detail['type']}, version {detail['version']}: {detail['actor']} {word}"


def _execution(moment: str, detail: dict[str, Any]) -> str:
    return f"{detail['kind']} {moment}{_why(detail) if moment == 'failed' else ''}"


def _log(moment: str, detail: dict[str, Any]) -> str:
    return str(detail["message"])


def _message(moment: str, detail: dict[str, Any]) -> str:
    settled = moment == detail["state"]
    return f"{detail['provider']} to {detail['destination']}: {moment}{_why(detail) if settled else ''}"


def _why(detail: dict[str, Any]) -> str:
    parts = [str(detail[name]) for name in ("error_kind", "error_message") if name in detail]
    return f" ({': '.join(parts)})" if parts else ""


_TITLES = {
    "replay": _replay,
    "signal": _signal,
    "directive": _directive,
    "transition": _transition,
    "approval": _approval,
    "decision": _decision,
    "execution": _execution,
    "log": _log,
    "message": _message,
}
