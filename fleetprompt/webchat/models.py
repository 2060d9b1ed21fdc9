"""The tables of the website chat: an index of public keys, and each tenant's own."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Date, ForeignKey, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase, SetByDatabase, TenantBase


class SiteKey(PlatformBase):
    """Whose site a public key names."""

    __tablename__ = "webchat_site_keys"
    site_key: Mapped[str] = mapped_column(primary_key=True)
    tenant_schema: Mapped[str] = mapped_column(server_default="current_user")
    site_id: Mapped[UUID]


class ChatSite(TenantBase):
    """A website with the widget; ``settings`` as ``site_settings.SiteSettings`` reads them."""

    __tablename__ = "website_chat_sites"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    site_key: Mapped[str]
    name: Mapped[str]
    status: Mapped[str]
    mode: Mapped[str]
    origins: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    settings: Mapped[dict[str, Any]]
    inserted_at: Mapped[SetByDatabase]
    updated_at: Mapped[SetByDatabase]


class ChatSiteSecret(TenantBase):
    """A sealed secret of a site."""

    __tablename__ = "website_chat_site_secrets"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    site_id: Mapped[UUID] = mapped_column(ForeignKey(ChatSite.id, ondelete="CASCADE"))
    purpose: Mapped[str]
    key_id: Mapped[UUID]
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[SetByDatabase]
    retired_at: Mapped[datetime | None]


class ChatConversation(TenantBase):
    """One visitor's conversation; at most one of a visitor at a site is open."""

    __tablename__ = "website_chat_conversations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    site_id: Mapped[UUID] = mapped_column(ForeignKey(ChatSite.id, ondelete="CASCADE"))
    visitor_id: Mapped[UUID]
    status: Mapped[str]
    last_seq: Mapped[int] = mapped_column(default=0, server_default="0")
    revision: Mapped[int] = mapped_column(default=0, server_default="0")
    visitor_name: Mapped[str | None]
    visitor_email: Mapped[str | None]
    identity: Mapped[str | None]
    consent_version: Mapped[str | None]
    consented_at: Mapped[datetime | None]
    language: Mapped[str | None]
    page_url: Mapped[str | None]
    address_hash: Mapped[str | None]
    agent_hash: Mapped[str | None]
    agent: Mapped[str | None]
    assignee: Mapped[str | None]
    read_seq: Mapped[int] = mapped_column(default=0, server_default="0")
    waiting_since: Mapped[datetime | None]
    rating: Mapped[int | None]
    inserted_at: Mapped[SetByDatabase]
    updated_at: Mapped[SetByDatabase]
    closed_at: Mapped[datetime | None]


class ChatMessage(TenantBase):
    """A message; ``content`` is null once it was erased. ``signal_id`` is the signal that told of it."""

    __tablename__ = "website_chat_messages"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(
        ForeignKey(ChatConversation.id, ondelete="CASCADE")
    )
    seq: Mapped[int]
    role: Mapped[str]
    author: Mapped[str | None]
    content: Mapped[str | None]
    client_message_id: Mapped[UUID | None]
    # `metadata` is taken by SQLAlchemy's own attribute.
    context: Mapped[dict[str, Any]] = mapped_column("metadata", server_default="{}")
    signal_id: Mapped[UUID]
    inserted_at: Mapped[datetime]


class ChatErasure(TenantBase):
    """A visitor that asked to be forgotten."""

    __tablename__ = "website_chat_erasures"
    site_id: Mapped[UUID] = mapped_column(
        ForeignKey(ChatSite.id, ondelete="CASCADE"), primary_key=True
    )
    visitor_id: Mapped[UUID] = mapped_column(primary_key=True)
    erased_at: Mapped[SetByDatabase]


class ChatLimit(TenantBase):
    """How much of a bucket was taken within its window."""

    __tablename__ = "website_chat_limits"
    bucket: Mapped[str] = mapped_column(primary_key=True)
    ends_at: Mapped[datetime] = mapped_column(primary_key=True)
    taken: Mapped[int]


class ChatSalt(TenantBase):
    """A day's salt for hashes of addresses and browsers."""

    __tablename__ = "website_chat_salts"
    day: Mapped[date] = mapped_column(Date(), primary_key=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary)
