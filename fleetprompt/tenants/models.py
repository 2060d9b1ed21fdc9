"""Tables of organizations, members and API keys, all in schema ``fleetprompt``."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase, SetByDatabase


class Organization(PlatformBase):
    """A tenant. Its data is in the schema named by ``schema_name``."""

    __tablename__ = "organizations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]
    schema_name: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="active")
    revision: Mapped[str | None]
    created_at: Mapped[SetByDatabase]


class User(PlatformBase):
    """A person; may be a member of several organizations."""

    __tablename__ = "users"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[SetByDatabase]


class Member(PlatformBase):
    """A person's role in an organization."""

    __tablename__ = "members"
    organization_id: Mapped[UUID] = mapped_column(
        ForeignKey(Organization.id, ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    role: Mapped[str]
    active: Mapped[bool] = mapped_column(server_default="true")
    created_at: Mapped[SetByDatabase]


class ApiKey(PlatformBase):
    """A key; of its token only a keyed hash is kept."""

    __tablename__ = "api_keys"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey(Organization.id, ondelete="CASCADE"))
    kind: Mapped[str]
    name: Mapped[str]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hint: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    role: Mapped[str | None]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    connector_id: Mapped[str | None]
    created_at: Mapped[SetByDatabase]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
