"""Exchanging a pairing code for a connector's key, once.

1. The try counts against the address that it comes from, before anything is looked at.
2. It counts against the code's first part, whether there is such a code or not. That row's lock lets the
   tries at one code through one by one, so that the bound is exact and one exchange wins.
3. The whole is compared in constant time. Wrong, expired, used and guessed-at get one and the same answer,
   after the same work.
4. The key is made, the connector's former keys end and the code is deleted in the same transaction.
5. The tenant's row says that it is paired. Where a crash prevents that, the first heartbeat says more.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import case, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock, system_clock
from fleetprompt.connectors.codes import code_hashes, make_code
from fleetprompt.connectors.expectations import version_warning
from fleetprompt.connectors.models import Connector, PairingCode, PairingTries
from fleetprompt.db.engine import Database
from fleetprompt.errors import RateLimitedError, UnauthenticatedError
from fleetprompt.sessions.guessing import Guessing
from fleetprompt.settings import Settings
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.models import ApiKey, Organization
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key

CODE_LIFE = timedelta(minutes=15)
MOST_TRIES = 5  # at one code
MOST_FAILURES = 20  # from one address within five minutes

_REFUSED = (
    "This pairing code is wrong, used or expired. Ask for a new one where connectors are listed."
)
_ONE_AT_A_TIME = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('fleetprompt.pairing:' || :connector_id, 0))"
)
# What somebody is trying at this moment is left for the next time.
_OVER = (
    text(
        "DELETE FROM fleetprompt.pairing_codes WHERE finder_hash IN (SELECT finder_hash"
        " FROM fleetprompt.pairing_codes WHERE expires_at <= :now LIMIT 1000 FOR UPDATE SKIP LOCKED)"
    ),
    text(
        "DELETE FROM fleetprompt.pairing_tries WHERE finder_hash IN (SELECT finder_hash"
        " FROM fleetprompt.pairing_tries WHERE ends_at <= :now LIMIT 1000 FOR UPDATE SKIP LOCKED)"
    ),
)
_NOBODY = bytes(32)  # compared with where there is no such code


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """A code in plain text, to be shown once."""

    code: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class About:
    """What a connector says of itself when it is paired."""

    version: str | None = None
    account: str | None = None
    device_id: str | None = None


@dataclass(frozen=True, slots=True)
class Paired:
    """What a connector gets for its code; ``key`` is kept nowhere."""

    tenant: Tenant
    connector_id: UUID
    label: str
    key: str
    warning: str | None


class Pairing:
    """Issues and exchanges codes, for one process."""

    def __init__(self, database: Database, settings: Settings, clock: Clock = system_clock) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._hash_key = load_master_key(settings).subkey("pairing-code-hash")
        self._guessing = Guessing(
            database, settings, clock, purpose="pairing", most=MOST_FAILURES, told=_too_often
        )

    async def issue(self, tenant: Tenant, connector_id: UUID, label: str) -> IssuedCode:
        """A new code for a connector, in place of the one that it had."""
        now = self._clock()
        issued = IssuedCode(make_code(), now + CODE_LIFE)
        for over in _OVER:
            await self._database.statement(over, {"now": now})
        async with self._database.platform() as session:
            await session.execute(_ONE_AT_A_TIME, {"connector_id": str(connector_id)})
            await end_code(session, tenant, connector_id)
            while not await self._store(session, tenant, connector_id, label, issued):
                # Another code begins alike.
                issued = IssuedCode(make_code(), issued.expires_at)
        return issued

    async def _store(
        self,
        session: AsyncSession,
        tenant: Tenant,
        connector_id: UUID,
        label: str,
        issued: IssuedCode,
    ) -> bool:
        finder_hash, code_hash = code_hashes(self._hash_key, issued.code)
        stored = await session.scalar(
            insert(PairingCode)
            .values(
                finder_hash=finder_hash,
                code_hash=code_hash,
                organization_id=tenant.id,
                connector_id=connector_id,
                label=label,
                expires_at=issued.expires_at,
            )
            .on_conflict_do_nothing(index_elements=[PairingCode.finder_hash])
            .returning(PairingCode.connector_id)
        )
        # What was guessed before this code was made is not held against it.
        await session.execute(delete(PairingTries).where(PairingTries.finder_hash == finder_hash))
        return stored is not None

    async def exchange(self, code: str, about: About, address: str) -> Paired:
        """The key for a code that was typed at a connector.

        UnauthenticatedError for any code that is not good, RateLimitedError beyond the most failures of
        an address.
        """
        trying = await self._guessing.begin(address)
        paired = await self._exchange(code, about)
        if paired is None:
            raise UnauthenticatedError(_REFUSED)
        await trying.succeeded()
        async with self._database.tenant(paired.tenant.schema) as session:
            await _note(session, paired, about, self._clock())
        return paired

    async def _exchange(self, code: str, about: About) -> Paired | None:
        now = self._clock()
        finder_hash, code_hash = code_hashes(self._hash_key, code)
        async with self._database.platform() as session:
            tries = await _count_try(session, finder_hash, now)
            row = (
                await session.execute(
                    select(PairingCode, Organization)
                    .join(Organization, Organization.id == PairingCode.organization_id)
                    .where(PairingCode.finder_hash == finder_hash)
                    .with_for_update(of=PairingCode)
                )
            ).one_or_none()
            same = hmac.compare_digest(row.PairingCode.code_hash if row else _NOBODY, code_hash)
            if row is None or not same or tries > MOST_TRIES or row.PairingCode.expires_at <= now:
                return None
            if row.Organization.state != "active":
                return None
            found, organization = row.PairingCode, row.Organization
            tenant = Tenant(organization.id, organization.slug, organization.schema_name)
            await session.delete(found)
            await end_keys(session, tenant, found.connector_id)
            asked = KeyRequest("conn", found.label, connector_id=str(found.connector_id))
            _, key = await issue_key(session, self._settings, tenant, asked)
        return Paired(tenant, found.connector_id, found.label, key, version_warning(about.version))


async def _count_try(session: AsyncSession, finder_hash: bytes, now: datetime) -> int:
    """Tries at this first part up to now, this one included."""
    over = PairingTries.ends_at <= now
    tries = await session.scalar(
        insert(PairingTries)
        .values(finder_hash=finder_hash, tries=1, ends_at=now + CODE_LIFE)
        .on_conflict_do_update(
            index_elements=[PairingTries.finder_hash],
            set_={
                "tries": case((over, 1), else_=PairingTries.tries + 1),
                "ends_at": case((over, now + CODE_LIFE), else_=PairingTries.ends_at),
            },
        )
        .returning(PairingTries.tries)
    )
    return tries or 0


async def _note(session: AsyncSession, paired: Paired, about: About, now: datetime) -> None:
    """Show that it is paired; one that was revoked meanwhile stays so."""
    await session.execute(
        update(Connector)
        .where(Connector.id == paired.connector_id, Connector.state != "revoked")
        .values(
            state=case((Connector.state == "requested", "paired"), else_=Connector.state),
            paired_at=now,
            account=func.coalesce(about.account, Connector.account),
            device_id=func.coalesce(about.device_id, Connector.device_id),
            version=func.coalesce(about.version, Connector.version),
        )
    )
    await emit(
        session,
        NewSignal(
            type="connector.paired",
            subject_type="connector",
            subject_id=str(paired.connector_id),
            data={"connector_id": str(paired.connector_id), "label": paired.label},
            correlation_id=correlation_of(paired.connector_id),
        ),
    )


async def end_code(session: AsyncSession, tenant: Tenant, connector_id: UUID) -> None:
    """Make a connector's code worthless, in a platform transaction."""
    await session.execute(
        delete(PairingCode).where(
            PairingCode.organization_id == tenant.id, PairingCode.connector_id == connector_id
        )
    )


async def end_keys(session: AsyncSession, tenant: Tenant, connector_id: UUID) -> None:
    """Revoke a connector's keys, in a platform transaction; every process refuses them within a second."""
    await session.execute(
        update(ApiKey)
        .where(
            ApiKey.organization_id == tenant.id,
            ApiKey.connector_id == str(connector_id),
            ApiKey.revoked_at.is_(None),
        )
        .values(revoked_at=func.now())
    )


def correlation_of(connector_id: UUID) -> str:
    """Joins everything about one connector, in the connector's own signals too."""
    return f"connector:{connector_id}"


def _too_often(retry_after: float) -> RateLimitedError:
    return RateLimitedError(
        "Too many pairing codes from your address were wrong. Wait a little; a code that is good stays so.",
        retry_after=retry_after,
    )
