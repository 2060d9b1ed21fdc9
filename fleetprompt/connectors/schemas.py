"""A connector as it is shown: its state now, and in plain words what a person should know."""

from datetime import UTC, datetime
from typing import Annotated, Literal, cast
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, TypeAdapter, ValidationError

from fleetprompt.connectors.expectations import version_warning
from fleetprompt.connectors.models import Connector
from fleetprompt.connectors.silence import is_silent
from fleetprompt.directives.failures import FAILURE_CLASSES
from fleetprompt.errors import ErrorKind

State = Literal["requested", "paired", "connected", "silent", "revoked"]


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


Time = Annotated[AwareDatetime, AfterValidator(_utc)]
_TIME: TypeAdapter[datetime] = TypeAdapter(Time)


class Problem(BaseModel):
    """Something that the connector says is wrong at present."""

    place: str | None
    kind: str | None
    code: str | None
    since: str | None


class Heartbeat(BaseModel):
    """The latest heartbeat: when the connector sent it, and what could be read of it."""

    at: Time
    uptime_seconds: int | None
    last_poll_at: Time | None
    last_post_at: Time | None
    queued_signals: int | None
    queued_bytes: int | None
    dead_letters: int | None
    problems: list[Problem]


class LastError(BaseModel):
    """The last ``connector.error``; ``means`` says in words what its class stands for."""

    at: Time
    kind: ErrorKind
    means: str
    code: str | None
    place: str | None
    message: str


class ConnectorView(BaseModel):
    """A connector; ``warnings`` are whole sentences."""

    id: UUID
    label: str
    package: str
    installation_id: UUID | None
    state: State
    account: str | None
    device_id: str | None
    version: str | None
    created_at: Time
    paired_at: Time | None
    last_seen_at: Time | None
    revoked_at: Time | None
    heartbeat: Heartbeat | None
    last_error: LastError | None
    warnings: list[str]


def view_of(connector: Connector, installation_id: UUID | None, now: datetime) -> ConnectorView:
    """From the row and the time of looking: silence shows before it is noted."""
    heartbeat = _heartbeat(connector)
    return ConnectorView(
        id=connector.id,
        label=connector.label,
        package=connector.package,
        installation_id=installation_id,
        state="silent" if is_silent(connector, now) else cast(State, connector.state),
        account=connector.account,
        device_id=connector.device_id,
        version=connector.version,
        created_at=connector.created_at,
        paired_at=connector.paired_at,
        last_seen_at=connector.last_seen_at,
        revoked_at=connector.revoked_at,
        heartbeat=heartbeat,
        last_error=_last_error(connector),
        warnings=_warnings(connector, heartbeat),
    )


def _heartbeat(connector: Connector) -> Heartbeat | None:
    if connector.heartbeat_at is None:
        return None
    said = connector.heartbeat
    queue = said.get("queue", {})
    return Heartbeat(
        at=connector.heartbeat_at,
        uptime_seconds=_number(said.get("uptime_seconds")),
        last_poll_at=_time(said.get("last_poll_at")),
        last_post_at=_time(said.get("last_post_at")),
        queued_signals=_number(queue.get("signals")),
        queued_bytes=_number(queue.get("bytes")),
        dead_letters=_number(queue.get("dead_letters")),
        problems=[
            Problem(**{name: _text(one.get(name)) for name in Problem.model_fields})
            for one in said.get("problems", [])
        ],
    )


def _last_error(connector: Connector) -> LastError | None:
    if connector.last_error_kind is None or connector.last_error_at is None:
        return None
    kind = cast(ErrorKind, connector.last_error_kind)
    return LastError(
        at=connector.last_error_at,
        kind=kind,
        means=FAILURE_CLASSES[kind].means,
        code=connector.last_error_code,
        place=connector.last_error_place,
        message=connector.last_error or "",
    )


def _warnings(connector: Connector, heartbeat: Heartbeat | None) -> list[str]:
    if connector.state == "revoked":
        return []
    found = [version_warning(connector.version)]
    if heartbeat is not None and heartbeat.dead_letters:
        found.append(
            f"{heartbeat.dead_letters} signals could not be delivered and lie in its queue: "
            "fleetprompt-edge queue list shows why."
        )
    return [one for one in found if one is not None]


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: object) -> datetime | None:
    """A time with a zone, as text; None for anything else that a connector may have sent."""
    if not isinstance(value, str):
        return None
    try:
        return _TIME.validate_python(value)
    except ValidationError:
        return None
