"""The directives about installations, and what happens when they are run.

Each handler makes its change and tells of it in one transaction, and finds its change made when it
is run again.
"""

from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.types import DirectiveParams, DirectiveType, Failure
from fleetprompt.errors import ConflictError, NotFoundError
from fleetprompt.packages import registry
from fleetprompt.packages.models import Installation
from fleetprompt.packages.scheduling import plan_slots
from fleetprompt.packages.service import (
    INSTALLED,
    connection_options,
    get_installation,
    is_its_credential,
    tell,
)
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import replan
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential


class InstallationParams(DirectiveParams):
    """Which installation."""

    installation_id: UUID


class ConfigureParams(InstallationParams):
    """The whole new configuration; connections that it does not name stay what they are."""

    config: dict[str, Any]


class InstallParams(ConfigureParams):
    """The package and version that were asked for."""

    package: str = Field(max_length=63)
    version: str = Field(max_length=64)


async def install(context: HandlerContext, params: InstallParams) -> dict[str, Any]:
    """Make the installation usable: configuration in place, state ``installed``."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id, lock=True)
        await tell(session, "install.started", installation, context.directive)
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id, lock=True)
        if installation.state in ("requested", "queued", "failed"):
            installation.version = params.version
            installation.state = "installed"
            await _apply(session, installation, params.config, context)
            installation.last_error = installation.last_error_kind = None
            installation.last_error_at = None
        await tell(session, "install.completed", installation, context.directive)
        return {"installation_id": str(installation.id), "state": installation.state}


async def configure(context: HandlerContext, params: ConfigureParams) -> dict[str, Any]:
    """Put a configuration in place and plan the slots to come by it."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id, lock=True)
        if installation.state not in (*INSTALLED, "disabled"):
            raise ConflictError(
                f"The installation is {installation.state}; it cannot be configured."
            )
        config = await _with_connections(session, installation, params.config)
        await _apply(session, installation, config, context)
        await tell(session, "configure.completed", installation, context.directive)
        return {
            "installation_id": str(installation.id),
            "config_checksum": installation.config_checksum,
        }


async def disable(context: HandlerContext, params: InstallationParams) -> dict[str, Any]:
    """Stop the schedule and all runs."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id, lock=True)
        installation.state = "disabled"
        installation.updated_at = func.clock_timestamp()
        await replan(session, installation.id, None, context.clock())
        await tell(session, "disable.completed", installation, context.directive)
    return {"installation_id": str(params.installation_id), "state": "disabled"}


async def enable(context: HandlerContext, params: InstallationParams) -> dict[str, Any]:
    """Take the schedule up again from now on."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id, lock=True)
        if installation.state == "disabled":
            installation.state = await _state_by_credentials(session, installation)
            await plan_slots(session, installation, context.clock())
            installation.updated_at = func.clock_timestamp()
        await tell(session, "enable.completed", installation, context.directive)
        return {"installation_id": str(installation.id), "state": installation.state}


async def uninstall(context: HandlerContext, params: InstallationParams) -> dict[str, Any]:
    """Delete the installation with its credentials and the slots that were not settled."""
    async with context.database.tenant(context.tenant.schema) as session:
        try:
            installation = await get_installation(session, params.installation_id, lock=True)
        except NotFoundError:
            return {"installation_id": str(params.installation_id), "state": "removed"}
        await session.execute(
            delete(ScheduleSlot).where(
                ScheduleSlot.installation_id == installation.id, ScheduleSlot.state == "planned"
            )
        )
        when_removed = getattr(registry.handlers_of(installation.package), "when_removed", None)
        if when_removed is not None:
            await when_removed(session, context)
        await tell(session, "uninstall.completed", installation, context.directive)
        await session.delete(installation)
    return {"installation_id": str(params.installation_id), "state": "removed"}


async def install_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: InstallParams,
    failure: Failure,
) -> None:
    """Show on the installation that it did not come about, and tell of it."""
    installation = await session.get(Installation, params.installation_id)
    if installation is None:
        return
    await session.execute(
        update(Installation)
        .where(
            Installation.id == installation.id,
            Installation.state.in_(("requested", "queued")),
        )
        .values(
            state="failed",
            last_error_kind=failure.error_kind,
            last_error=failure.message,
            last_error_at=func.clock_timestamp(),
        )
    )
    await tell(
        session,
        "install.failed",
        installation,
        directive,
        error_kind=failure.error_kind,
        error_message=failure.message,
    )


async def _with_connections(
    session: AsyncSession, installation: Installation, config: dict[str, Any]
) -> dict[str, Any]:
    """``config`` with the installation's own connections where it names none, or one that is gone.

    Since it was asked for, perhaps days ago for want of an approval, somebody may have connected anew.
    """
    manifest = registry.get(installation.package)
    checked = registry.validate_config(manifest, config).as_json()
    for option, kind in connection_options(installation).items():
        named = checked.get(option)
        gone = named is not None and not await is_its_credential(session, installation, kind, named)
        if option not in config or gone:
            checked[option] = installation.config.get(option)
    return checked


async def _apply(
    session: AsyncSession,
    installation: Installation,
    config: dict[str, Any],
    context: HandlerContext,
) -> None:
    manifest = registry.get(installation.package)
    checked = registry.validate_config(manifest, config).as_json()
    installation.config = checked
    installation.config_checksum = registry.config_checksum(checked)
    installation.updated_at = func.clock_timestamp()
    await session.flush()
    await session.refresh(installation)
    await plan_slots(session, installation, context.clock())


async def _state_by_credentials(session: AsyncSession, installation: Installation) -> str:
    states = set(
        await session.scalars(
            select(IntegrationCredential.state).where(
                IntegrationCredential.installation_id == installation.id
            )
        )
    )
    return (
        "connected" if "connected" in states else "degraded" if "failing" in states else "installed"
    )


DIRECTIVE_TYPES = (
    DirectiveType(
        "package.install",
        "Installs a package in the tenant.",
        InstallParams,
        install,
        after_failure=install_failed,
    ),
    DirectiveType(
        "package.configure",
        "Replaces an installation's configuration and re-plans what is to come.",
        ConfigureParams,
        configure,
    ),
    DirectiveType(
        "package.disable", "Stops an installation's schedule and runs.", InstallationParams, disable
    ),
    DirectiveType(
        "package.enable",
        "Takes an installation's schedule and runs up again.",
        InstallationParams,
        enable,
    ),
    DirectiveType(
        "package.uninstall",
        "Removes an installation with its credentials.",
        InstallationParams,
        uninstall,
    ),
)
