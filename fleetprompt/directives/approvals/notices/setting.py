"""Where a tenant wants notices of approvals, and how many: read, changed, and looked up to post."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.notices.models import ApprovalNotices
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.outbound.transports.mattermost import parse_channel
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import operations_of
from fleetprompt.packages.service import INSTALLED, require_administrator
from fleetprompt.vault.models import IntegrationCredential

PROVIDER = "mattermost"
MOST_PER_HOUR = 100
SHORTEST_REMINDER = 60
LONGEST_REMINDER = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class WantedNotices:
    """What an administrator asks for. ``remind_before_seconds`` None means no reminder."""

    installation_id: UUID
    enabled: bool = True
    channel: str | None = None
    remind_before_seconds: int | None = 3600
    most_per_hour: int = 20


@dataclass(frozen=True, slots=True)
class Connection:
    """A Mattermost webhook in the vault; ``destination`` is what people may see of it."""

    credential_id: UUID
    destination: str


async def read_notices(session: AsyncSession, *, lock: bool = False) -> ApprovalNotices | None:
    """The tenant's setting, None while there is none; its row locked if asked."""
    query = select(ApprovalNotices).execution_options(populate_existing=True)
    if lock:
        query = query.with_for_update()
    found: ApprovalNotices | None = await session.scalar(query)
    return found


async def store_notices(
    session: AsyncSession, wanted: WantedNotices, *, by: Actor
) -> ApprovalNotices:
    """Put the setting in place; for owners and admins.

    InvalidError with a pointer for an installation that is not there or cannot post to Mattermost,
    a channel that is none, and numbers out of bounds.
    """
    require_administrator(by)
    _check_bounds(wanted)
    channel = _channel(wanted.channel)
    installation = await session.get(Installation, wanted.installation_id)
    if installation is None or await connection_of(session, installation, channel) is None:
        raise InvalidError(
            "Notices need an installation that is connected to Mattermost.",
            errors=[
                {
                    "pointer": "/installation_id",
                    "detail": "an installation of this tenant that is connected to Mattermost",
                }
            ],
        )
    values = {
        "enabled": wanted.enabled,
        "installation_id": wanted.installation_id,
        "channel": channel,
        "remind_before_seconds": wanted.remind_before_seconds,
        "most_per_hour": wanted.most_per_hour,
        "changed_by": by.id,
        "changed_at": func.clock_timestamp(),
    }
    await session.execute(
        insert(ApprovalNotices)
        .values(single=True, **values)
        .on_conflict_do_update(index_elements=[ApprovalNotices.single], set_=values)
    )
    stored = await read_notices(session)
    if stored is None:  # its installation was removed at the same moment
        raise NotFoundError(f"There is no installation {wanted.installation_id}.")
    return stored


async def connection_of(
    session: AsyncSession, installation: Installation, channel: str | None
) -> Connection | None:
    """The installation's Mattermost webhook; None if it has none or is switched off."""
    operations = operations_of(installation.package)
    if operations is None or operations.credential_kind != PROVIDER:
        return None
    named = installation.config.get(operations.credential_option)
    if named is None or installation.state not in INSTALLED:
        return None
    credential = await session.get(IntegrationCredential, UUID(named))
    if credential is None:
        return None
    return Connection(credential.id, f"{credential.label}#{channel or 'default'}")


def _check_bounds(wanted: WantedNotices) -> None:
    errors = []
    before = wanted.remind_before_seconds
    if before is not None and not SHORTEST_REMINDER <= before <= LONGEST_REMINDER:
        detail = f"{SHORTEST_REMINDER} to {LONGEST_REMINDER}, or null for no reminder"
        errors.append({"pointer": "/remind_before_seconds", "detail": detail})
    if not 1 <= wanted.most_per_hour <= MOST_PER_HOUR:
        errors.append({"pointer": "/most_per_hour", "detail": f"1 to {MOST_PER_HOUR}"})
    if errors:
        raise InvalidError("This setting cannot be used.", errors=errors)


def _channel(named: str | None) -> str | None:
    try:
        return parse_channel(named) if named else None
    except InvalidError as error:
        errors = [{"pointer": "/channel", "detail": error.detail}]
        raise InvalidError(error.detail, errors=errors) from None
