"""The test that an administrator asks for: every site looked at, and a line wherever the team is told."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import DirectiveParams
from fleetprompt.executions import service as executions
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import correlation_of
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.mattermost import connection_to, post_once
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.registration import list_sites
from fleetprompt.webchat.site_settings import Notify, SiteSettings
from fleetprompt.webchat.tenant_settings import ChatSettings, tenant_chat

TEST = "webchat.test"
_TEXT = (
    "**Website chat** can post here. This is a test that somebody asked for; conversations will be told of "
    "in this channel."
)


class TestParams(DirectiveParams):
    """One test, told of in one execution."""

    __test__ = False  # not a test, whatever its name

    installation_id: UUID
    execution_id: UUID


async def request_test(
    session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor
) -> tuple[Directive, Execution]:
    """The directive and execution of a test."""
    execution_id = new_id()
    directive, _ = await request_directive(
        session,
        tenant,
        TEST,
        TestParams(installation_id=installation.id, execution_id=execution_id),
        idempotency_key=f"dir:webchat_test:{tenant.slug}:{execution_id}",
        actor=actor,
        correlation_id=correlation_of(tenant, installation.id),
    )
    execution = await executions.create(
        session,
        TEST,
        execution_id=execution_id,
        correlation_id=directive.correlation_id,
        directive_id=directive.id,
        installation_id=installation.id,
    )
    return directive, execution


async def test_chat(context: HandlerContext, params: TestParams) -> dict[str, Any]:
    """Look at every site, post a line in each place, and tell of both; what was done is not done again."""
    async with context.database.tenant(context.tenant.schema) as session:
        chat = await tenant_chat(session)
        if chat.installation_id is None or chat.switched_off:
            raise DirectiveFailed("validation", "The package website_chat is not installed and on.")
        sites = await list_sites(session)
        places = {
            place: await connection_to(session, place.installation_id, place.channel)
            for place in _places(sites, chat.settings)
        }
    told = {
        "installation_id": str(params.installation_id),
        "sites": [_finding(site, chat.settings) for site in sites],
        "posted": bool(places),
    }
    for place, connection in places.items():
        key = (
            f"webchat_test:{context.tenant.slug}:{params.execution_id}:"
            f"{place.installation_id}#{place.channel or 'default'}"
        )
        await post_once(context, connection, key, _TEXT, place.channel, _nothing_more)
    async with context.database.tenant(context.tenant.schema) as session:
        await emit(
            session,
            NewSignal(
                type="webchat.test.completed",
                source="webchat",
                data=told,
                subject_type="installation",
                subject_id=str(params.installation_id),
                correlation_id=context.directive.correlation_id,
                causation_id=f"directive:{context.directive.id}",
                dedupe_key=f"webchat_test_completed:{context.directive.id}",
            ),
        )

    return {**told, "destinations": [one.destination for one in places.values()]}


test_chat.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name


def _places(sites: Iterable[ChatSite], chat: ChatSettings) -> list[Notify]:
    """Where conversations are told of: the tenant's place, and those of sites that have their own."""
    own = (
        SiteSettings.model_validate(site.settings).notify
        for site in sites
        if site.status == "active" and site.mode == "native"
    )
    return list(dict.fromkeys(place for place in (chat.notify, *own) if place is not None))


async def _nothing_more(session: AsyncSession) -> None:
    """What is told when a line is posted: nothing, until all are."""


def _finding(site: ChatSite, chat: ChatSettings) -> dict[str, Any]:
    problem = None
    if site.status != "active":
        problem = "It is switched off; register it again to switch it on."
    elif not site.origins:
        problem = "No address of its pages is allowed, so every page is refused."
    elif site.mode == "charla_embed" and chat.charla_script_url is None:
        problem = "The address of Charla's script is not set."
    elif site.mode == "charla_embed" and not site.settings.get("charla_property_key"):
        problem = "Charla's key for this site is not set."
    return {
        "site_id": str(site.id),
        "mode": site.mode,
        "origins": len(site.origins),
        "ok": problem is None,
        "problem": problem,
    }
