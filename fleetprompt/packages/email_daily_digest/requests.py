"""What the e-mail digest's directives are called, and what makes each letter one."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.packages.digest import params, requests
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.params import SettleParams
from fleetprompt.packages.models import Installation
from fleetprompt.tenants.service import Tenant

RUN = "email_digest.run"
TEST = "email_digest.test"
SETTLE = "email_digest.settle"

__all__ = [
    "KIND",
    "RUN",
    "SETTLE",
    "TEST",
    "DigestParams",
    "SettleParams",
    "TestParams",
    "request_test",
]


class DigestParams(params.DigestParams):
    """One digest by e-mail."""

    key: ClassVar[str] = "email_digest"


class TestParams(params.TestParams):
    """One test e-mail, to all active admins or to those of them who are named."""

    key: ClassVar[str] = "email_test"

    to: tuple[str, ...] | None = Field(default=None, max_length=200)


KIND = DigestKind(
    transport="email",
    key="email_digest",
    run=RUN,
    test=TEST,
    settle=SETTLE,
    digest=DigestParams,
    trial=TestParams,
    cannot_look=(
        "It went by a mail server, which cannot tell afterwards. Ask somebody who should have got it, "
        "then send it again or give it up."
    ),
)


async def request_test(
    session: AsyncSession,
    tenant: Tenant,
    installation: Installation,
    actor: Actor,
    to: Sequence[str] | None = None,
) -> tuple[Directive, Execution]:
    """The directive and execution of a test e-mail."""
    asked = TestParams(
        installation_id=installation.id,
        execution_id=new_id(),
        to=None if to is None else tuple(to),
    )
    return await requests.request_test(session, KIND, tenant, asked, actor)
