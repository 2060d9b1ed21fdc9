"""Who asks in a visitor's request, and how much may come from there."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.webchat.addresses import hashed, network_of, salt_of
from fleetprompt.webchat.limits import Bucket, Scope, full, remove_ended, take, use_once
from fleetprompt.webchat.sites import Site
from fleetprompt.webchat.work import bits_for, read_proof, required

_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True, slots=True)
class Guest:
    """A visitor on one of the site's pages, at this moment; ``answer`` is that to a challenge.

    ``expires_at`` is when the token ends, in Unix seconds. ``can_work``: the page's browser can do the work
    of a challenge. ``solved``: the answer is one to the tenant's CAPTCHA, and its vendor says that it holds.
    """

    site: Site
    visitor_id: UUID
    address: str
    user_agent: str
    expires_at: int
    now: datetime
    answer: str | None = None
    can_work: bool = True
    solved: bool = False

    async def address_hash(self, session: AsyncSession) -> str:
        """The visitor's network, under the day's salt."""
        return await network_hash(session, self.address, self.now)

    async def agent_hash(self, session: AsyncSession) -> str:
        """The visitor's browser, under the day's salt."""
        return hashed(await salt_of(session, self.now), f"agent:{self.user_agent}")

    async def admit_session(self, session: AsyncSession) -> None:
        """Count a new conversation; RateLimitedError or ChallengeRequiredError beyond what may be."""
        limits = self.site.settings.limits
        buckets = [
            await self._by_address(session, "session", limits.sessions_per_address_hour, _HOUR),
            self._bucket("site", "session", "", limits.sessions_per_site_minute, _MINUTE),
        ]
        await self._admit(session, buckets, limits.free_sessions_per_address_hour)
        await remove_ended(session, self.now)

    async def admit_message(self, session: AsyncSession, conversation_id: UUID) -> None:
        """Count a message; RateLimitedError or ChallengeRequiredError beyond what may be."""
        limits, visitor = self.site.settings.limits, str(self.visitor_id)
        most = limits.messages_per_conversation_minute
        buckets = [
            self._bucket("conversation", "message", str(conversation_id), most, _MINUTE),
            self._bucket(
                "visitor", "message", visitor, limits.messages_per_visitor_minute, _MINUTE
            ),
            await self._by_address(session, "message", limits.messages_per_address_minute, _MINUTE),
            self._bucket("site", "message", "", limits.messages_per_site_minute, _MINUTE),
        ]
        await self._admit(session, buckets, limits.free_messages_per_address_minute)

    async def admit_change(self, session: AsyncSession) -> None:
        """Count any other change that a visitor makes."""
        most = self.site.settings.limits.changes_per_visitor_minute
        bucket = self._bucket("visitor", "change", str(self.visitor_id), most, _MINUTE)
        await take(session, [bucket], self.now)

    async def _admit(self, session: AsyncSession, buckets: list[Bucket], free: int) -> None:
        taken = await take(session, buckets, self.now)
        excess = taken["address"] - free
        if excess > 0 and not await self._worked(session):
            if not self.can_work:
                raise full(next(one for one in buckets if one.scope == "address"), self.now)
            secret = self.site.signing.content
            raise required(secret, self.site.id, self.visitor_id, bits_for(excess), self.now)

    async def _worked(self, session: AsyncSession) -> bool:
        """Whether a challenge was answered, by work that was asked for and not used before.

        What was asked is what counts: others may have come since and made the next one harder.
        """
        if self.solved:  # the vendor confirms an answer once
            return True
        for secret in self.site.token_secrets.values():
            proof = read_proof(self.answer, secret.content, self.site.id, self.visitor_id, self.now)
            if proof is not None:
                return await use_once(session, proof.nonce, proof.expires_at)
        return False

    async def _by_address(
        self, session: AsyncSession, kind: str, most: int, seconds: int
    ) -> Bucket:
        place = await self.address_hash(session)
        return self._bucket("address", kind, place, most, seconds)

    def _bucket(self, scope: Scope, kind: str, place: str, most: int, seconds: int) -> Bucket:
        return Bucket(scope, kind, f"{self.site.id}:{place}", most, seconds)


async def network_hash(session: AsyncSession, address: str, now: datetime) -> str:
    """An address's network under the day's salt."""
    return hashed(await salt_of(session, now), f"network:{network_of(address)}")


async def admit_bootstrap(session: AsyncSession, site: Site, address: str, now: datetime) -> None:
    """Count a page that asks for the site's settings; RateLimitedError beyond what may be."""
    most = site.settings.limits.bootstraps_per_address_minute
    place = f"{site.id}:{await network_hash(session, address, now)}"
    await take(session, [Bucket("address", "bootstrap", place, most, _MINUTE)], now)
    await remove_ended(session, now)
