"""Tables of sessions, one-time links and failed sign-ins, in schema ``fleetprompt``.

Of tokens and addresses only keyed hashes are kept.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase
from fleetprompt.tenants.models import ApiKey, Member


def _of_member() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["organization_id", "user_id"],
        [Member.organization_id, Member.user_id],
        ondelete="CASCADE",
    )


class ConsoleSession(PlatformBase):
    """A person signed in to one tenant; ``key_id`` is the key it was opened with, if any."""

    __tablename__ = "console_sessions"
    __table_args__ = (_of_member(),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID]
    user_id: Mapped[UUID]
    key_id: Mapped[UUID | None] = mapped_column(ForeignKey(ApiKey.id, ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class SignInLink(PlatformBase):
    """A link that opens one session, once."""

    __tablename__ = "sign_in_links"
    __table_args__ = (_of_member(),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID]
    user_id: Mapped[UUID]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime]


class SignInFailures(PlatformBase):
    """How often signing in failed from an address within a window of time."""

    __tablename__ = "sign_in_failures"
    address_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    failures: Mapped[int]
