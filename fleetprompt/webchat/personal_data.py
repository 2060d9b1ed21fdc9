"""What of a visitor's words, name and address goes into signals and into notices for the team.

``all`` is everything, ``words`` what was written without name and address, ``nothing`` neither. A site that
keeps content out of signals keeps it out of both, whatever the tenant says of all its sites.
"""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.site_settings import SiteSettings
from fleetprompt.webchat.tenant_settings import ChatSettings, Held, tenant_chat


@dataclass(frozen=True, slots=True)
class Holding:
    """What one kind of record may hold."""

    held: Held

    @property
    def words(self) -> bool:
        """What visitors and the team write."""
        return self.held != "nothing"

    @property
    def contact(self) -> bool:
        """The visitor's name and address."""
        return self.held == "all"


@dataclass(frozen=True, slots=True)
class PersonalData:
    """What signals hold, and what posts and mails to the team hold."""

    signals: Holding
    notices: Holding


def personal_data(site: SiteSettings, chat: ChatSettings) -> PersonalData:
    """What applies at a site."""
    if not site.content_in_signals:
        return PersonalData(Holding("nothing"), Holding("nothing"))
    return PersonalData(Holding(chat.signals_hold), Holding(chat.notices_hold))


async def personal_data_at(session: AsyncSession, site: ChatSite) -> PersonalData:
    """What applies at a site, as both are set at this moment."""
    chat = await tenant_chat(session)
    return personal_data(SiteSettings.model_validate(site.settings), chat.settings)
