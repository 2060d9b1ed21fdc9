"""Opening, recognising and ending sessions.

A session is looked up at each request, together with the membership and the key behind it, so that
a person who is demoted or removed, or whose key is revoked, loses the right at once.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from sqlalchemy import delete, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.errors import ForbiddenError, UnauthenticatedError
from fleetprompt.ids import new_id
from fleetprompt.sessions.models import ConsoleSession, SignInLink
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.keys import TENANT_SCOPES, Role, Scope, lesser
from fleetprompt.tenants.members import get_member
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key

TOKEN_BYTES = 32
# Seconds between notes of a session's last use, so that each page is not a write.
_NOTED_EVERY = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in, and to which tenant."""

    session_id: UUID
    identity: Identity
    email: str
    tenant_name: str
    expires_at: datetime

    @property
    def user_id(self) -> UUID:
        """The person's id; a session always has one."""
        assert self.identity.user_id is not None  # noqa: S101 - the table's column is not null
        return self.identity.user_id


@dataclass(frozen=True, slots=True)
class LinkHolder:
    """Whom a one-time link signs in, and to which tenant."""

    email: str
    tenant_name: str


_FIND = text(
    """
    SELECT s.id, s.expires_at, s.last_used_at, s.user_id, u.email, m.role AS member_role,
           o.id AS organization_id, o.slug, o.schema_name, o.name AS tenant_name,
           k.role AS key_role, k.scopes
    FROM fleetprompt.console_sessions s
    JOIN fleetprompt.organizations o ON o.id = s.organization_id AND o.state = 'active'
    JOIN fleetprompt.members m
      ON m.organization_id = s.organization_id AND m.user_id = s.user_id AND m.active
    JOIN fleetprompt.users u ON u.id = s.user_id
    LEFT JOIN fleetprompt.api_keys k ON k.id = s.key_id
    WHERE s.token_hash = :hash AND s.expires_at > :now AND s.last_used_at > :idle_since
      AND (s.key_id IS NULL
           OR (k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now)))
    """
)
_LINK = text(
    """
    SELECT u.email, o.name AS tenant_name
    FROM fleetprompt.sign_in_links l
    JOIN fleetprompt.organizations o ON o.id = l.organization_id AND o.state = 'active'
    JOIN fleetprompt.members m
      ON m.organization_id = l.organization_id AND m.user_id = l.user_id AND m.active
    JOIN fleetprompt.users u ON u.id = l.user_id
    WHERE l.token_hash = :hash AND l.expires_at > :now
    """
)
_LINK_IS_OVER = "This link has been used, has expired, or never was. Ask for another one."


class Sessions:
    """The sessions of one installation of the platform. Tokens are returned once and kept nowhere."""

    def __init__(self, database: Database, settings: Settings, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock
        self._operations = settings.operations_tenant
        self._lifetime = timedelta(hours=settings.session_hours)
        self._idle = timedelta(minutes=settings.session_idle_minutes)
        self._link_lifetime = timedelta(minutes=settings.sign_in_link_minutes)
        self._hash_key = load_master_key(settings).subkey("console-token-hash")

    async def make_link(self, tenant: Tenant, user_id: UUID) -> str:
        """A token that signs this member in, once and soon; NotFoundError for no member."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        now = self._clock()
        async with self._database.platform() as session:
            await get_member(session, tenant, user_id)
            await session.execute(delete(SignInLink).where(SignInLink.expires_at <= now))
            session.add(
                SignInLink(
                    id=new_id(),
                    organization_id=tenant.id,
                    user_id=user_id,
                    token_hash=self._hash(token),
                    expires_at=now + self._link_lifetime,
                )
            )
        return token

    async def link_holder(self, token: str) -> LinkHolder:
        """Whom the link would sign in; looking uses nothing up. UnauthenticatedError when it is over."""
        async with self._database.platform() as session:
            asked = {"hash": self._hash(token), "now": self._clock()}
            row = (await session.execute(_LINK, asked)).one_or_none()
        if row is None:
            raise UnauthenticatedError(_LINK_IS_OVER)
        return LinkHolder(row.email, row.tenant_name)

    async def open_by_link(self, token: str) -> str:
        """A new session's token, and the link is used up; UnauthenticatedError when it is over."""
        async with self._database.platform() as session:
            row = (
                await session.execute(
                    delete(SignInLink)
                    .where(
                        SignInLink.token_hash == self._hash(token),
                        SignInLink.expires_at > self._clock(),
                    )
                    .returning(SignInLink.organization_id, SignInLink.user_id)
                )
            ).one_or_none()
            if row is None:
                raise UnauthenticatedError(_LINK_IS_OVER)
            return await self._open(session, row.organization_id, row.user_id, None)

    async def open_by_key(self, key: Identity) -> str:
        """A new session's token, for the person that the key belongs to and with the key's rights.

        ForbiddenError for a connector's or a site's key and for one that belongs to nobody.
        """
        if key.kind != "user" or key.user_id is None or key.key_id is None:
            raise ForbiddenError(
                "This key belongs to no person. Use the key of a member, or ask for a one-time link."
            )
        async with self._database.platform() as session:
            return await self._open(session, key.tenant.id, key.user_id, key.key_id)

    async def find(self, token: str, *, noted: bool = True) -> SignedIn:
        """Who is signed in; UnauthenticatedError when the session is over or never was.

        ``noted``: the request is a sign of life, which puts off the end by idleness.
        """
        now = self._clock()
        asked = {"hash": self._hash(token), "now": now, "idle_since": now - self._idle}
        async with self._database.platform() as session:
            row = (await session.execute(_FIND, asked)).one_or_none()
            if row is None:
                raise UnauthenticatedError("You are not signed in, or no longer.")
            if noted and row.last_used_at <= now - min(_NOTED_EVERY, self._idle / 4):
                await session.execute(
                    update(ConsoleSession)
                    .where(ConsoleSession.id == row.id, ConsoleSession.last_used_at < now)
                    .values(last_used_at=now)
                )
        role = cast(Role, row.member_role)
        identity = Identity(
            key_id=None,
            session_id=row.id,
            tenant=Tenant(row.organization_id, row.slug, row.schema_name),
            kind="user",
            scopes=self._scopes(row.slug) if row.scopes is None else frozenset(row.scopes),
            role=role if row.key_role is None else lesser(row.key_role, role),
            user_id=row.user_id,
            connector_id=None,
        )
        return SignedIn(row.id, identity, row.email, row.tenant_name, row.expires_at)

    async def close(self, token: str) -> None:
        """Sign out; one that is over already is no error."""
        async with self._database.platform() as session:
            await session.execute(
                delete(ConsoleSession).where(ConsoleSession.token_hash == self._hash(token))
            )

    async def close_all(self, tenant: Tenant, user_id: UUID) -> int:
        """Sign a member out everywhere, unused links included; how many sessions there were."""
        async with self._database.platform() as session:
            ended = await session.scalars(
                delete(ConsoleSession)
                .where(
                    ConsoleSession.organization_id == tenant.id, ConsoleSession.user_id == user_id
                )
                .returning(ConsoleSession.id)
            )
            await session.execute(
                delete(SignInLink).where(
                    SignInLink.organization_id == tenant.id, SignInLink.user_id == user_id
                )
            )
            return len(ended.all())

    async def _open(
        self, session: AsyncSession, organization_id: UUID, user_id: UUID, key_id: UUID | None
    ) -> str:
        now = self._clock()
        await session.execute(delete(ConsoleSession).where(ConsoleSession.expires_at <= now))
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session.add(
            ConsoleSession(
                id=new_id(),
                organization_id=organization_id,
                user_id=user_id,
                key_id=key_id,
                token_hash=self._hash(token),
                created_at=now,
                last_used_at=now,
                expires_at=now + self._lifetime,
            )
        )
        return token

    def _scopes(self, slug: str) -> frozenset[str]:
        """What a person may do beyond what the role says: everything that a tenant's key may."""
        own = frozenset(scope.value for scope in TENANT_SCOPES)
        return own | {Scope.TENANTS_ADMIN.value} if slug == self._operations else own

    def _hash(self, token: str) -> bytes:
        return hmac.digest(self._hash_key, token.encode("utf-8", "replace"), hashlib.sha256)
