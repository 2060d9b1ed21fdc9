"""The table of what a tenant's days used of language models, in each tenant's schema."""

from datetime import date

from sqlalchemy import Date
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import TenantBase


class LlmDay(TenantBase):
    """One UTC day: tokens and millionths of a US dollar, calls under way counted at their most."""

    __tablename__ = "llm_days"
    day: Mapped[date] = mapped_column(Date(), primary_key=True)
    calls: Mapped[int]
    tokens: Mapped[int]
    micro_dollars: Mapped[int]
