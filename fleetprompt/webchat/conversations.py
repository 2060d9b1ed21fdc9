"""Visitors' conversations: begun, gone on with, ended, rated; whom they are with."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import (
    ConflictError,
    ConsentRequiredError,
    ConsentStaleError,
    InvalidError,
    NotFoundError,
    VisitorExpiredError,
)
from fleetprompt.ids import new_id
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.identity import Identity
from fleetprompt.webchat.models import ChatConversation, ChatErasure
from fleetprompt.webchat.sites import Site
from fleetprompt.webchat.telling import tell

# How long a visitor who comes back is shown a conversation that is over.
_SHOWN_AFTER_CLOSING = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Contact:
    """Who a visitor says to be; None keeps what was said before."""

    name: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a visitor begins a conversation with; ``page_url`` and contact are checked already."""

    consent: str | None = None
    contact: Contact = Contact()
    identity: Identity | None = None
    page_url: str | None = None
    language: str | None = None


async def check_not_erased(session: AsyncSession, site_id: UUID, visitor_id: UUID) -> None:
    """VisitorExpiredError for a visitor that asked to be forgotten."""
    if await session.get(ChatErasure, (site_id, visitor_id)) is not None:
        raise VisitorExpiredError


async def latest(
    session: AsyncSession, site: Site, visitor_id: UUID, now: datetime
) -> ChatConversation | None:
    """The visitor's open conversation, else the last one if it was closed within a day."""
    found = await session.scalar(
        select(ChatConversation)
        .where(
            ChatConversation.site_id == site.id,
            ChatConversation.visitor_id == visitor_id,
            ChatConversation.status != "erased",
        )
        .order_by(ChatConversation.status.desc(), ChatConversation.id.desc())
        .limit(1)
    )
    if found is None or found.closed_at is None or found.closed_at > now - _SHOWN_AFTER_CLOSING:
        return found
    return None


async def own_conversation(
    session: AsyncSession, guest: Guest, conversation_id: UUID, *, lock: bool = False
) -> ChatConversation:
    """The visitor's conversation of this id; NotFoundError for others' and for erased ones."""
    wanted = select(ChatConversation).where(
        ChatConversation.id == conversation_id,
        ChatConversation.site_id == guest.site.id,
        ChatConversation.visitor_id == guest.visitor_id,
        ChatConversation.status != "erased",
    )
    found = await session.scalar(wanted.with_for_update() if lock else wanted)
    if found is None:
        raise NotFoundError("You have no such conversation.")
    return found


def check_consent(site: Site, given: str | None, language: str | None) -> None:
    """Refuse what is stored without the consent that the site asks for."""
    consent = site.settings.consent
    if consent is None or given == consent.version:
        return
    if given is None:
        raise ConsentRequiredError
    raise ConsentStaleError(consent=site.consent_view(language))


async def open_conversation(
    session: AsyncSession, guest: Guest, arrival: Arrival
) -> tuple[ChatConversation, bool]:
    """The visitor's open conversation, and whether it was made now."""
    site = guest.site
    await check_not_erased(session, site.id, guest.visitor_id)
    check_consent(site, arrival.consent, arrival.language)
    conversation = await _open_one(session, guest)
    made = False
    if conversation is None:
        await guest.admit_session(session)
        made = await _insert(session, guest, arrival)
        conversation = await _open_one(session, guest)
    if conversation is None:  # ended between the two statements by another page of the visitor's
        raise ConflictError("The conversation has just ended. Try again.")
    if not made and (arrival.identity is not None or arrival.contact != Contact()):
        await guest.admit_change(session)
    if site.settings.consent is not None and conversation.consent_version != arrival.consent:
        conversation.consent_version, conversation.consented_at = arrival.consent, guest.now
    if made:
        data = {"page_url": conversation.page_url, "language": conversation.language}
        if conversation.consent_version is not None:
            data["consent_version"] = conversation.consent_version
        await tell(session, "session.started", conversation, data)
    if arrival.identity is not None:
        if conversation.identity not in (None, arrival.identity.subject):
            # Somebody else has signed in: the name and the address were the other's.
            conversation.visitor_name = conversation.visitor_email = None
        conversation.identity = arrival.identity.subject
        named = Contact(arrival.identity.name, arrival.identity.email)
        await keep_contact(session, site, conversation, named, verified=True)
    await keep_contact(session, site, conversation, arrival.contact)
    return conversation, made


async def _open_one(session: AsyncSession, guest: Guest) -> ChatConversation | None:
    found: ChatConversation | None = await session.scalar(
        select(ChatConversation)
        .where(
            ChatConversation.site_id == guest.site.id,
            ChatConversation.visitor_id == guest.visitor_id,
            ChatConversation.status == "open",
        )
        .with_for_update()
    )
    return found


async def _insert(session: AsyncSession, guest: Guest, arrival: Arrival) -> bool:
    made = await session.scalar(
        insert(ChatConversation)
        .values(
            id=new_id(),
            site_id=guest.site.id,
            visitor_id=guest.visitor_id,
            status="open",
            consent_version=arrival.consent if guest.site.settings.consent else None,
            consented_at=guest.now if guest.site.settings.consent else None,
            language=arrival.language,
            page_url=arrival.page_url,
            address_hash=await guest.address_hash(session),
            agent_hash=await guest.agent_hash(session),
            inserted_at=guest.now,
            updated_at=guest.now,
        )
        .on_conflict_do_nothing(
            index_elements=["site_id", "visitor_id"],
            # As the index says it: a parameter in its place would match no index.
            index_where=text("status = 'open'"),
        )
        .returning(ChatConversation.id)
    )
    return made is not None


async def keep_contact(
    session: AsyncSession,
    site: Site,
    conversation: ChatConversation,
    contact: Contact,
    *,
    verified: bool = False,
) -> None:
    """Keep a name or an address, and tell of it once for the same content.

    What the site's own server vouched for is not replaced by what the visitor says.
    """
    vouched = conversation.identity is not None and not verified
    name = (conversation.visitor_name if vouched else None) or contact.name
    email = (conversation.visitor_email if vouched else None) or contact.email
    name, email = name or conversation.visitor_name, email or conversation.visitor_email
    if (name, email) == (conversation.visitor_name, conversation.visitor_email):
        return
    conversation.visitor_name, conversation.visitor_email = name, email
    conversation.revision += 1
    said = {"name": name, "email": email} if site.personal_data.signals.contact else {}
    await tell(
        session,
        "contact.captured",
        conversation,
        {**{key: value for key, value in said.items() if value}, "verified": verified},
        # Under the row's lock a revision is one change; a hash of the content would be guessed from it.
        dedupe_key=f"webchat_contact:{site.tenant.slug}:{conversation.id}:{conversation.revision}",
    )


async def close(
    session: AsyncSession,
    conversation: ChatConversation,
    *,
    by: str,
    now: datetime,
    causation_id: str | None = None,
) -> None:
    """End an open conversation, whose row is locked, and tell of it; a closed one stays as it is."""
    if conversation.status != "open":
        return
    conversation.status, conversation.closed_at = "closed", now
    conversation.updated_at, conversation.waiting_since = now, None
    conversation.revision += 1
    await tell(
        session,
        "session.ended",
        conversation,
        {"by": by, "messages": conversation.last_seq},
        dedupe_key=f"webchat_ended:{conversation.id}",
        causation_id=causation_id,
    )


async def rate(session: AsyncSession, conversation: ChatConversation, rating: int) -> None:
    """Keep how a closed conversation was, 1 to 5; a later word replaces an earlier one."""
    if not 1 <= rating <= 5:
        raise InvalidError(errors=[{"pointer": "/rating", "detail": "1 to 5"}])
    if conversation.status == "open":
        raise ConflictError("A conversation is rated once it is over.")
    if conversation.rating != rating:
        conversation.rating = rating
        await tell(session, "session.rated", conversation, {"rating": rating})
