"""Issuing, listing, revoking and recognising API keys."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.errors import (
    FleetPromptError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthenticatedError,
)
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import (
    CONNECTOR_SCOPES,
    TENANT_SCOPES,
    Kind,
    Role,
    Scope,
    at_least,
    fits_connector_id,
    hint_of,
    lesser,
    make_token,
    token_hash,
    well_formed,
)
from fleetprompt.tenants.models import ApiKey
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key

log = logging.getLogger(__name__)

T = TypeVar("T")

_SEEN_EVERY = 60.0  # seconds between notes of a key's last use, so that a busy key is no hot row
_CACHE_LIMIT = 10_000


@dataclass(frozen=True)
class Identity:
    """Who a request comes from. The tenant is always that of the key, or of the session.

    ``key_id`` is None for a person who is signed in; then ``session_id`` is set.
    """

    key_id: UUID | None
    tenant: Tenant
    kind: Kind
    scopes: frozenset[str]
    role: Role | None
    user_id: UUID | None
    connector_id: str | None
    session_id: UUID | None = None

    @property
    def actor(self) -> str:
        """How this caller is named in records: ``user:<id>``, ``connector:<id>`` or ``key:<id>``."""
        if self.connector_id is not None:
            return f"connector:{self.connector_id}"
        return f"user:{self.user_id}" if self.user_id else f"key:{self.key_id}"

    def require(self, scope: Scope, role: Role | None = None) -> None:
        """Raise ForbiddenError unless this key has the scope and, where asked, the role."""
        if scope not in self.scopes:
            raise ForbiddenError(f"This key lacks the scope {scope.value!r}.", scope=scope.value)
        if role is not None and not at_least(self.role, role):
            raise ForbiddenError(
                f"This needs the role {role!r}; yours is {self.role or 'none'!r}.", role=role
            )


def hash_key(settings: Settings) -> bytes:
    """The key under which tokens are hashed."""
    return load_master_key(settings).subkey("api-key-hash")


@dataclass(frozen=True)
class KeyRequest:
    """What a new key shall be. ``scopes`` empty means all that the kind may have."""

    kind: Kind
    name: str
    scopes: frozenset[str] = frozenset()
    role: Role | None = None
    user_id: UUID | None = None
    connector_id: str | None = None
    expires_at: datetime | None = None


async def issue_key(
    session: AsyncSession,
    settings: Settings,
    tenant: Tenant,
    request: KeyRequest,
    *,
    issuer: Identity | None = None,
) -> tuple[ApiKey, str]:
    """Make a key in a platform transaction; returns its row and its token, which is kept nowhere.

    An issuer can give no scope that it lacks and no role above its own (ForbiddenError). Scope
    ``tenants:admin`` belongs to the operations tenant alone.
    """
    allowed = TENANT_SCOPES if request.kind == "user" else CONNECTOR_SCOPES
    if request.kind == "user" and tenant.slug == settings.operations_tenant:
        allowed = allowed | {Scope.TENANTS_ADMIN}
    if request.kind == "pub":
        allowed = frozenset()
    scopes = request.scopes or allowed
    _check(request, scopes, allowed)
    if issuer is not None:
        if lacking := sorted(set(scopes) - issuer.scopes):
            raise ForbiddenError(f"Your key lacks {', '.join(lacking)}, so it cannot give them.")
        if request.role is not None and not at_least(issuer.role, request.role):
            raise ForbiddenError(f"Your role cannot make a key with the role {request.role!r}.")
    token = make_token(request.kind)
    key = ApiKey(
        id=new_id(),
        organization_id=tenant.id,
        kind=request.kind,
        name=request.name.strip(),
        token_hash=token_hash(hash_key(settings), token),
        hint=hint_of(token),
        scopes=sorted(scopes),
        role=request.role,
        user_id=request.user_id,
        connector_id=request.connector_id,
        expires_at=request.expires_at,
    )
    session.add(key)
    await session.flush()
    await session.refresh(key)
    return key, token


def _check(request: KeyRequest, scopes: Iterable[str], allowed: frozenset[Scope]) -> None:
    errors = []
    if not 1 <= len(request.name.strip()) <= 100 or "\x00" in request.name:
        errors.append({"pointer": "/name", "detail": "a name has 1 to 100 characters"})
    if unknown := sorted(set(scopes) - {s.value for s in allowed}):
        errors.append(
            {
                "pointer": "/scopes",
                "detail": f"{', '.join(unknown)}: not for a key of kind {request.kind!r}; "
                f"it may have {', '.join(sorted(allowed)) or 'none'}",
            }
        )
    if (request.kind == "user") != (request.role is not None):
        errors.append({"pointer": "/role", "detail": "a user key has a role, others have none"})
    if (request.kind == "conn") != (request.connector_id is not None):
        errors.append(
            {"pointer": "/connector_id", "detail": "a connector key has one, others have none"}
        )
    elif request.connector_id is not None and not fits_connector_id(request.connector_id):
        errors.append(
            {"pointer": "/connector_id", "detail": "1 to 128 printable characters, not 'platform'"}
        )
    if request.expires_at is not None and request.expires_at.tzinfo is None:
        errors.append({"pointer": "/expires_at", "detail": "needs a zone, such as …T12:00:00Z"})
    if errors:
        raise InvalidError("This key cannot be made.", errors=errors)


async def list_keys(session: AsyncSession, tenant: Tenant) -> list[ApiKey]:
    """All keys of a tenant, newest first; tokens cannot be shown again."""
    found = select(ApiKey).where(ApiKey.organization_id == tenant.id).order_by(ApiKey.id.desc())
    return list(await session.scalars(found))


async def revoke_key(session: AsyncSession, tenant: Tenant, key_id: UUID) -> None:
    """End a key; every process refuses it within a second. Again is no error."""
    done = await session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.organization_id == tenant.id)
        .values(revoked_at=text("coalesce(revoked_at, now())"))
        .returning(ApiKey.id)
    )
    if done.first() is None:
        raise NotFoundError(f"There is no key {key_id} in this tenant.")


_LOOK_UP = text(
    """
    SELECT k.id, k.kind, k.scopes, k.role, k.user_id, k.connector_id, k.expires_at,
           o.id AS organization_id, o.slug, o.schema_name, m.role AS member_role
    FROM fleetprompt.api_keys k JOIN fleetprompt.organizations o ON o.id = k.organization_id
    LEFT JOIN fleetprompt.members m
      ON m.organization_id = k.organization_id AND m.user_id = k.user_id AND m.active
    WHERE k.token_hash = :hash AND k.revoked_at IS NULL AND o.state = 'active'
      AND (k.user_id IS NULL OR m.user_id IS NOT NULL)
    """
)
_SEEN = text(
    """
    UPDATE fleetprompt.api_keys SET last_used_at = now()
    WHERE id = :id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
    """
)


class _Known:
    """A key that was looked up, or is being: good until ``until``, asked again from ``renew_at`` on.

    Both count from the beginning of the look-up, so that revocation is bounded by ``keep`` seconds.
    """

    __slots__ = ("looking", "renew_at", "renewing", "until")

    def __init__(self, looking: "asyncio.Task[Identity]", now: float, keep: float) -> None:
        self.looking = looking
        self.until = now + keep
        self.renew_at = now + keep / 2
        self.renewing = False


class KeyRing:
    """Recognises keys, with a cache shorter than the second that revocation is promised in."""

    def __init__(self, database: Database, settings: Settings, clock: Clock = system_clock) -> None:
        self._database = database
        self._hash_key = hash_key(settings)
        self._clock = clock
        self._keep = settings.key_cache_seconds
        self._known: dict[str, _Known] = {}
        self._seen: dict[UUID, float] = {}
        self._under_way: set[asyncio.Task[Any]] = set()

    async def identify(self, token: str) -> Identity:
        """Whose key this is; UnauthenticatedError if it is unknown, expired or revoked.

        Concurrent requests with one key share one look-up.
        """
        now = time.monotonic()
        entry = self._known.get(token)
        if entry is not None and now < entry.until:
            if now >= entry.renew_at and not entry.renewing:
                # Asked again before it runs out, so that under load nobody waits for the look-up.
                entry.renewing = True
                self._remember(token, now)
        else:
            if not well_formed(token):
                raise UnauthenticatedError("This is not a FleetPrompt API key.")
            entry = self._remember(token, now)
        identity = await asyncio.shield(entry.looking)
        if identity.key_id is not None:
            self._note_use(identity.key_id, now)
        return identity

    def _remember(self, token: str, now: float) -> "_Known":
        """Start a look-up; its answer replaces the former one only when it is there."""
        if len(self._known) >= _CACHE_LIMIT:
            self._known.clear()
        made = _Known(self._begin(self._look_up(token)), now, self._keep)
        if token not in self._known or now >= self._known[token].until:
            self._known[token] = made
        # A look-up that nobody waits for may fail unheard.
        made.looking.add_done_callback(lambda _: self._settle(token, made))
        return made

    def _settle(self, token: str, made: "_Known") -> None:
        if made.looking.cancelled() or made.looking.exception() is not None:
            self._known.pop(token, None)
        else:
            self._known[token] = made

    async def _look_up(self, token: str) -> Identity:
        async with self._database.platform() as session:
            found = await session.execute(_LOOK_UP, {"hash": token_hash(self._hash_key, token)})
            row = found.one_or_none()
        if row is None or (row.expires_at is not None and row.expires_at <= self._clock()):
            raise UnauthenticatedError("This API key is unknown, expired or revoked.")
        scopes = frozenset(row.scopes)
        return Identity(
            key_id=row.id,
            tenant=Tenant(row.organization_id, row.slug, row.schema_name),
            kind=row.kind,
            # Connectors' keys of earlier versions were given more.
            scopes=scopes & CONNECTOR_SCOPES if row.kind == "conn" else scopes,
            # A person's key can do no more than the person may now.
            role=row.role if row.user_id is None else lesser(row.role, row.member_role),
            user_id=row.user_id,
            connector_id=row.connector_id,
        )

    def _note_use(self, key_id: UUID, now: float) -> None:
        if now - self._seen.get(key_id, -_SEEN_EVERY) < _SEEN_EVERY:
            return
        if len(self._seen) >= _CACHE_LIMIT:
            self._seen.clear()
        self._seen[key_id] = now
        self._begin(self._write_use(key_id))

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _write_use(self, key_id: UUID) -> None:
        try:
            async with self._database.platform() as session:
                await session.execute(_SEEN, {"id": key_id})
        except FleetPromptError as error:
            log.warning("a key's last use was not noted", extra={"reason": error.id})

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
