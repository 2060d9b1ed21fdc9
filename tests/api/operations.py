"""Every operation of the OpenAPI document, with values to call it with."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.connectors.models import Connector
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.types import find_type
from fleetprompt.executions import service as executions
from fleetprompt.ids import new_id
from fleetprompt.outbound import ledger
from fleetprompt.packages import service as packages
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.replays.selection import Selection
from fleetprompt.signals.replays.service import ask_for_replay
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.cipher import DataKey
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.models import ChatConversation, ChatSite
from fleetprompt.webchat.registration import register
from fleetprompt.webchat.site_settings import SiteSettings
from tests.api.support import DIGEST, Keys, signal
from tests.directives.connector_types import connector_directive

# Operations that need no key. Who pairs has none yet, only a code.
OPEN = frozenset({"live", "ready", "moving", "pair_connector"})
# Any key may ask who it is.
NEEDS_NO_SCOPE = frozenset({"read_me"})
# A slug here names a package of the catalogue, which is everybody's; there, a tenant, which is the
# operator's business.
# Directive types are the platform's, and which need approval is asked by their names.
NOT_A_TENANTS_OWN = frozenset(
    {
        *("read_package", "install_package", "delete_tenant"),
        *("read_approval_policy", "change_approval_policy"),
    }
)
STREAMS = frozenset({"follow_signals"})

BODIES: dict[str, Any] = {
    "post_signals_user": signal(),
    "post_signals_connector": signal(dedupe_key="k"),
    "report_execution": {"key": "run-1", "kind": "support.drafts", "state": "started"},
    "request_directive": {"type": "test.write", "params": {"words": "hello"}},
    "extend_lease": {"attempt": 1, "lease_token": str(UUID(int=1))},
    "report_result": {
        "attempt": 1,
        "lease_token": str(UUID(int=1)),
        "outcome": "succeeded",
        "result": {},
    },
    "install_package": {"config": {}},
    "configure_installation": {"config": {}},
    "connect_installation": {"kind": "mattermost", "url": "https://chat.example.org/hooks/abc"},
    "settle_outbound_message": {"action": "give_up"},
    "send_test_email": {},
    "pair_connector": {"code": "AAAA-BBBB-CCCC"},
    "create_connector": {"label": "Support mailbox"},
    "add_member": {"email": "new@example.org", "role": "viewer"},
    "issue_key": {"kind": "user", "name": "new", "role": "viewer", "scopes": ["signals:read"]},
    "approve_approval": {"hash": "0" * 64},
    "reject_approval": {"hash": "0" * 64, "reason": "not like this"},
    "edit_approval": {"params": {}},
    "change_approval_notices": {"installation_id": str(UUID(int=1))},
    "change_approval_policy": {"required": True, "roles": ["owner"]},
    "ask_for_replay": {"occurred_from": "2026-01-06T00:00:00Z"},
    "register_webchat_site": {"name": "Shop", "origins": ["https://shop.example"]},
    "rotate_webchat_secret": {},
    "reply_to_visitor": {"text": "hello", "author": "Anna"},
    "mark_conversation_read": {"seq": 1},
    "assign_conversation": {"user_id": None},
    "escalate_conversation": {"installation_id": str(UUID(int=1))},
    "resolve_escalation": {"action": "give_up"},
    "create_tenant": {"slug": "acme-new", "name": "Acme"},
    "delete_tenant": {"confirm": "nobody-here"},
}


@dataclass(frozen=True)
class Operation:
    """One operation of the document."""

    id: str
    method: str
    path: str
    parameters: tuple[str, ...]
    has_body: bool
    secured: bool

    @property
    def for_connectors(self) -> bool:
        """Whether it answers to connectors' keys alone."""
        return self.path.startswith("/api/edge/v1/directives")

    async def call(self, client: httpx.AsyncClient, values: dict[str, str]) -> httpx.Response:
        """Call it with these path values and a body that is good."""
        body = {"json": BODIES[self.id]} if self.has_body else {}
        if self.for_connectors:
            # Of the tenant's directives only a connector's own are at such an address.
            values = values | {"directive_id": values["connector_directive_id"]}
        path = self.path.format(**{name: values[name] for name in self.parameters})
        return await client.request(self.method, path, **body)


def operations(app: FastAPI) -> Iterator[Operation]:
    """All operations of the application's document."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield Operation(
                id=operation["operationId"],
                method=method.upper(),
                path=path,
                parameters=tuple(
                    one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"
                ),
                has_body="requestBody" in operation,
                secured=bool(operation.get("security")),
            )


async def objects_of(database: Database, keys: Keys, tenant: Tenant) -> dict[str, str]:
    """One object of each kind in a tenant: path parameter → id."""
    actor = Actor("user:somebody", "owner")
    data_key = await Vault(database, load_master_key(keys.settings)).current_key(tenant)
    async with database.tenant(tenant.schema) as session:
        fetched = await connector_directive(session, tenant)
        directive, installation = await packages.install(session, tenant, DIGEST, {}, actor)
        kind = find_type("package.disable")
        await change_terms(session, kind, required=True, policy=ApprovalPolicy(), by=actor)
        waiting = await packages.disable(session, tenant, installation.id, actor)
        (approval,) = await approvals.list_approvals(session, directive_id=waiting.id)
        execution = await executions.create(
            session, "test", directive_id=directive.id, installation_id=installation.id
        )
        message = await ledger.plan_and_claim(
            session,
            ledger.Intent(
                "test:object", "mattermost", "chat.example.org#default", "ab" * 32,
                execution_id=execution.id,
            ),
        )  # fmt: skip
        january = Selection(occurred_from=datetime(2026, 1, 1, tzinfo=UTC))
        replay = await ask_for_replay(session, tenant, january, live=False, actor=actor)
        site, conversation = await chat_objects(session, tenant, data_key)
        signal_id = await emit(session, NewSignal(type="test.object", data={}))
        session.add(connector := Connector(id=new_id(), package="p", label="l", created_by="t"))
    user_id = await keys.member(tenant, f"second@{tenant.slug}.example.org", "admin")
    async with database.platform() as session:
        asked = KeyRequest("user", "object", role="viewer")
        key, _ = await issue_key(session, keys.settings, tenant, asked)
    found: dict[str, UUID] = {
        "signal_id": signal_id,
        "directive_id": directive.id,
        "connector_directive_id": fetched.id,
        "connector_id": connector.id,
        "site_id": site.id,
        "conversation_id": conversation.id,
        "approval_id": approval.id,
        "execution_id": execution.id,
        "installation_id": installation.id,
        "message_id": message.row.id,
        "replay_id": replay.id,
        "user_id": user_id,
        "key_id": key.id,
        "correlation_id": directive.id,
    }
    return {name: str(value) for name, value in found.items()}


async def chat_objects(
    session: AsyncSession, tenant: Tenant, data_key: DataKey
) -> tuple[ChatSite, ChatConversation]:
    """A site with a visitor's conversation."""
    site, _ = await register(
        session,
        tenant,
        data_key,
        site_id=new_id(),
        name="Shop",
        origins=["https://shop.example"],
        settings=SiteSettings(),
    )
    conversation = ChatConversation(
        id=new_id(), site_id=site.id, visitor_id=new_id(), status="open"
    )
    session.add(conversation)
    await session.flush()
    return site, conversation
