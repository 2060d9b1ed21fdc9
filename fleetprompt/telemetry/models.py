"""Tables that processes report to; the platform's own, closed to tenants."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Double, FetchedValue, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase, SetByDatabase


class WorkerProcess(PlatformBase):
    """A process that counts, and what it was doing when it last reported."""

    __tablename__ = "worker_processes"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[str]
    state: Mapped[dict[str, Any]]
    last_start_at: Mapped[datetime | None]
    started_at: Mapped[SetByDatabase]
    seen_at: Mapped[SetByDatabase]
    ended_at: Mapped[datetime | None]


class WorkerCounter(PlatformBase):
    """One series of one process. ``amounts`` are those of ``counting.Amounts``; they only grow.

    ``flush`` is the number of the process's flush that was added last, so that none is added twice.
    """

    __tablename__ = "worker_counters"
    process_id: Mapped[UUID] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text), primary_key=True)
    amounts: Mapped[list[float]] = mapped_column(ARRAY(Double))
    flush: Mapped[int]


class WaitingApproval(PlatformBase):
    """The index table of approvals that wait, over all tenants; kept by a trigger on theirs."""

    __tablename__ = "approvals_waiting"
    tenant_schema: Mapped[str] = mapped_column(primary_key=True, server_default=FetchedValue())
    approval_id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    created_at: Mapped[datetime]
