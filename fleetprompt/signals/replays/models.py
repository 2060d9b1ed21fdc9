"""Tables of replays and of what they found, in each tenant's schema."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase
from fleetprompt.directives.models import Directive

OPEN_STATES = ("requested", "running")


class Replay(TenantBase):
    """One replay: who asked, for which signals, how far it is, and the counts so far.

    Counts move in the transaction that moves the cursor, so that they are exact whatever is killed.
    """

    __tablename__ = "replays"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default="requested")
    live: Mapped[bool]
    selection: Mapped[dict[str, Any]]
    asked_by: Mapped[str]
    correlation_id: Mapped[str]
    directive_id: Mapped[UUID] = mapped_column(ForeignKey(Directive.id, ondelete="CASCADE"))
    before_txid: Mapped[int] = mapped_column(server_default="pg_current_xact_id()::text::bigint")
    cursor_txid: Mapped[int] = mapped_column(server_default="0")
    cursor_id: Mapped[UUID] = mapped_column(server_default="00000000-0000-0000-0000-000000000000")
    signals_selected: Mapped[int | None]
    signals_read: Mapped[int] = mapped_column(server_default="0")
    would_request: Mapped[int] = mapped_column(server_default="0")
    requested: Mapped[int] = mapped_column(server_default="0")
    duplicates: Mapped[int] = mapped_column(server_default="0")
    refused: Mapped[int] = mapped_column(server_default="0")
    handlers_failed: Mapped[int] = mapped_column(server_default="0")
    part: Mapped[int] = mapped_column(server_default="1")
    error_kind: Mapped[str | None]
    error_message: Mapped[str | None]
    asked_at: Mapped[SetByDatabase]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ReplayFinding(TenantBase):
    """A directive that a replay asked for or, muted, would ask for; or why something was not."""

    __tablename__ = "replay_findings"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    replay_id: Mapped[UUID] = mapped_column(ForeignKey(Replay.id, ondelete="CASCADE"))
    outcome: Mapped[str]
    signal_id: Mapped[UUID]
    package: Mapped[str]
    directive_type: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    action_sha256: Mapped[str | None]
    params: Mapped[dict[str, Any] | None]
    directive_id: Mapped[UUID | None] = mapped_column(ForeignKey(Directive.id, ondelete="SET NULL"))
    detail: Mapped[str | None]
