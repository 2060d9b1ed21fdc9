"""A visitor's conversation: begun, said who one is, ended, rated, forgotten."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.responses import Response

from fleetprompt.errors import InvalidError, TokenInvalidError, VisitorExpiredError
from fleetprompt.webchat import conversations, erasure
from fleetprompt.webchat.conversations import Arrival, Contact
from fleetprompt.webchat.identity import read_identity
from fleetprompt.webchat.text import checked_email, checked_name, page_address
from fleetprompt.webchat.views import contact_view, conversation_view
from fleetprompt_api.auth import Platform
from fleetprompt_api.webchat.guests import GuestRoute, TheGuest, router

routes = router(GuestRoute)

Word = Annotated[str, Field(max_length=8192)]


class ContactGiven(BaseModel):
    """A name, an address, or both."""

    name: Word | None = None
    email: Word | None = None

    def checked(self) -> Contact:
        """In the form that is stored."""
        return Contact(checked_name(self.name), checked_email(self.email))


class SessionAsked(BaseModel):
    """What a visitor comes with."""

    consent: Annotated[str | None, Field(max_length=64)] = None
    contact: ContactGiven | None = None
    identity: Word | None = None
    page_url: str | None = None  # what is too long is left out
    language: Annotated[str | None, Field(max_length=35, pattern=r"^[A-Za-z0-9-]+$")] = None


class OfConversation(BaseModel):
    """Which conversation."""

    conversation_id: UUID


class ContactOf(OfConversation, ContactGiven):
    """Who the visitor of a conversation is."""


class RatingOf(OfConversation):
    """How a conversation was."""

    rating: Annotated[int, Field(ge=1, le=5)]


@routes.post("/sessions")
async def open_session(
    asked: SessionAsked, guest: TheGuest, platform: Platform, response: Response
) -> dict[str, Any]:
    """The visitor's open conversation; made if there is none."""
    arrival = Arrival(
        consent=asked.consent,
        contact=asked.contact.checked() if asked.contact else Contact(),
        identity=read_identity(asked.identity, guest.site.identity_secret, guest.now)
        if asked.identity
        else None,
        page_url=page_address(asked.page_url),
        language=asked.language,
    )
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        try:
            found, made = await conversations.open_conversation(session, guest, arrival)
        except VisitorExpiredError:
            # With a new token the widget gets a new visitor.
            raise TokenInvalidError("The token's visitor was erased.") from None
    platform.chat_live.tell(guest.site.tenant.schema, found.id)
    response.status_code = 201 if made else 200
    return {"conversation": conversation_view(found), "contact": contact_view(found)}


@routes.post("/contact")
async def keep_contact(asked: ContactOf, guest: TheGuest, platform: Platform) -> dict[str, Any]:
    """Who the visitor is; told of once for the same content."""
    contact = asked.checked()
    if contact == Contact():
        raise InvalidError(errors=[{"pointer": "", "detail": "name or email"}])
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        found = await conversations.own_conversation(
            session, guest, asked.conversation_id, lock=True
        )
        await guest.admit_change(session)
        await conversations.keep_contact(session, guest.site, found, contact)
    platform.chat_live.tell(guest.site.tenant.schema, found.id)
    return {"contact": contact_view(found)}


@routes.post("/end")
async def end(asked: OfConversation, guest: TheGuest, platform: Platform) -> dict[str, Any]:
    """End the conversation; one that is over stays so."""
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        found = await conversations.own_conversation(
            session, guest, asked.conversation_id, lock=True
        )
        await conversations.close(session, found, by="visitor", now=guest.now)
    platform.chat_live.tell(guest.site.tenant.schema, found.id)
    return {"conversation": conversation_view(found)}


@routes.post("/rating", status_code=204)
async def rate(asked: RatingOf, guest: TheGuest, platform: Platform) -> None:
    """How the conversation was, once it is over."""
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        found = await conversations.own_conversation(
            session, guest, asked.conversation_id, lock=True
        )
        await guest.admit_change(session)
        await conversations.rate(session, found, asked.rating)
    platform.chat_live.tell(guest.site.tenant.schema, found.id)


@routes.post("/typing", status_code=204)
async def typing(asked: OfConversation, guest: TheGuest, platform: Platform) -> None:
    """The visitor is typing; nothing is stored."""
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        found = await conversations.own_conversation(session, guest, asked.conversation_id)
    platform.chat_live.tell_typing(guest.site.tenant.schema, found.id, "visitor")


@routes.post("/erase", status_code=204)
async def erase(guest: TheGuest, platform: Platform) -> None:
    """Forget the visitor: all conversations at this site."""
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        erased = await erasure.erase_visitor(
            session, guest.site.id, guest.visitor_id, guest.now, by="visitor"
        )
        await guest.admit_change(session)  # behind the conversations' locks, like every change
    for conversation_id in erased:
        platform.chat_live.tell(guest.site.tenant.schema, conversation_id)
