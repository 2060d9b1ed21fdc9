"""What an installation's page shows."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.executions import service as executions
from fleetprompt.executions.schemas import ExecutionView
from fleetprompt.packages import registry
from fleetprompt.packages.schemas import (
    CredentialView,
    InstallationDetails,
    InstallationView,
    SlotView,
)
from fleetprompt.packages.service import get_installation
from fleetprompt.schedules.slots import slots_of
from fleetprompt.vault.models import IntegrationCredential

_LAST = 10


async def installation_details(session: AsyncSession, installation_id: UUID) -> InstallationDetails:
    """An installation with its credentials (never the secrets), slots and last executions."""
    installation = await get_installation(session, installation_id)
    manifest = registry.get(installation.package)
    checked = registry.validate_config(manifest, installation.config)
    credentials = await session.scalars(
        select(IntegrationCredential)
        .where(IntegrationCredential.installation_id == installation_id)
        .order_by(IntegrationCredential.id.desc())
    )
    last = await executions.list_executions(session, installation_id=installation_id, limit=_LAST)
    return InstallationDetails(
        **InstallationView.model_validate(installation).model_dump(),
        missing=list(checked.missing()),
        credentials=[CredentialView.model_validate(one) for one in credentials],
        slots=[
            SlotView.model_validate(one)
            for one in await slots_of(session, installation_id, limit=_LAST)
        ],
        executions=[ExecutionView.model_validate(one) for one in last],
    )
