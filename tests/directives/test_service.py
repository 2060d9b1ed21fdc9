"""Asking for directives: one for a key, roles, params, cancelling."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives import service
from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, DirectiveType
from fleetprompt.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidError,
    NotFoundError,
    SecretFoundError,
)
from fleetprompt.ids import new_id
from fleetprompt.tenants.service import Tenant

ADMIN = Actor("user:ada", "admin")


class Words(DirectiveParams):
    """What to say, and how often."""

    words: str
    times: int = 1


async def say(context: HandlerContext, params: Words) -> dict[str, str]:
    return {"said": params.words * params.times}


TYPES: Mapping[str, AnyDirectiveType] = {
    kind.name: kind
    for kind in (
        DirectiveType("test.say", "Says words.", Words, say),
        DirectiveType("test.shout", "Says words loudly.", Words, say),
    )
}


async def ask(
    database: Database, tenant: Tenant, key: str = "k", kind: str = "test.say", **params: Any
) -> tuple[UUID, bool]:
    async with database.tenant(tenant.schema) as session:
        directive, created = await service.request_directive(
            session,
            tenant,
            kind,
            params or {"words": "hello"},
            idempotency_key=key,
            actor=ADMIN,
            types=TYPES,
        )
        return directive.id, created


async def test_50_equal_requests_at_once_make_one_directive_and_all_get_its_id(
    database: Database, tenant: Tenant
) -> None:
    """Trap T44."""
    answers = await asyncio.gather(*(ask(database, tenant) for _ in range(50)))
    assert len({directive_id for directive_id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    async with database.tenant(tenant.schema) as session:
        assert len(await service.list_directives(session)) == 1
        steps = await service.transitions(session, answers[0][0])
    assert [(s.from_state, s.to_state) for s in steps] == [
        ("", "requested"),
        ("requested", "pending"),
    ]


@pytest.mark.parametrize(
    ("kind", "params"),
    [("test.say", {"words": "other"}), ("test.shout", {"words": "hello"})],
)
async def test_the_same_key_for_something_else_is_refused(
    database: Database, tenant: Tenant, kind: str, params: dict[str, Any]
) -> None:
    await ask(database, tenant, words="hello")
    with pytest.raises(IdempotencyMismatchError):
        await ask(database, tenant, kind=kind, **params)


async def test_equal_params_in_another_order_and_with_defaults_spelled_out_are_the_same(
    database: Database, tenant: Tenant
) -> None:
    first, _ = await ask(database, tenant, words="a", times=1)
    again, created = await ask(database, tenant, times=1, words="a")
    assert (again, created) == (first, False)
    again, created = await ask(database, tenant, words="a")
    assert (again, created) == (first, False)


async def test_a_role_that_the_type_does_not_name_is_refused(
    database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        for role in ("member", "viewer", "connector"):
            with pytest.raises(ForbiddenError, match="admin, owner"):
                await service.request_directive(
                    session,
                    tenant,
                    "test.say",
                    {"words": "x"},
                    idempotency_key="k",
                    actor=Actor("user:x", role),
                    types=TYPES,
                )
        directive, _ = await service.request_directive(
            session, tenant, "test.say", {"words": "x"}, idempotency_key="k", actor=PLATFORM,
            types=TYPES,
        )  # fmt: skip
        assert directive.actor_role == "platform"


async def test_params_are_checked_with_pointers(database: Database, tenant: Tenant) -> None:
    with pytest.raises(InvalidError) as caught:
        await ask(database, tenant, words="x", times="many", volume=11)
    assert [e["pointer"] for e in caught.value.errors] == ["/params/times", "/params/volume"]


async def test_an_unknown_type_and_an_empty_key_are_refused(
    database: Database, tenant: Tenant
) -> None:
    with pytest.raises(InvalidError, match=r"test\.sing"):
        await ask(database, tenant, kind="test.sing")
    with pytest.raises(InvalidError):
        await ask(database, tenant, "")
    with pytest.raises(InvalidError):
        await ask(database, tenant, "k" * 513)


async def test_a_secret_in_the_params_is_refused_by_its_place(
    database: Database, tenant: Tenant
) -> None:
    hook = "https://chat.example.org/hooks/abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(SecretFoundError) as caught:
        await ask(database, tenant, words=f"post to {hook}")
    assert caught.value.errors[0]["pointer"] == "/params/words"
    assert hook not in str(caught.value.errors)


async def test_another_tenants_directive_is_not_found(
    database: Database, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    other = await new_tenant()
    directive_id, _ = await ask(database, tenant)
    async with database.tenant(other.schema) as session:
        with pytest.raises(NotFoundError):
            await service.get(session, directive_id)
    assert (await ask(database, other))[1], "the same key in another tenant is another directive"


async def test_cancelling_ends_a_pending_directive_and_is_repeatable(
    database: Database, tenant: Tenant
) -> None:
    directive_id = await pending(database, tenant)
    for _ in range(2):
        async with database.tenant(tenant.schema) as session:
            cancelled = await service.cancel(session, tenant, directive_id, ADMIN, types=TYPES)
            assert cancelled.state == "cancelled"
            assert cancelled.finished_at is not None
    async with database.tenant(tenant.schema) as session:
        states = [s.to_state for s in await service.transitions(session, directive_id)]
        assert states == ["requested", "pending", "cancelled"]
        with pytest.raises(ForbiddenError):
            viewer = Actor("user:v", "viewer")
            await service.cancel(session, tenant, directive_id, viewer, types=TYPES)
    async with database.platform() as session:
        left = await session.scalar(
            text("SELECT count(*) FROM fleetprompt.directive_queue WHERE directive_id = :id"),
            {"id": directive_id},
        )
    assert left == 0


async def pending(database: Database, tenant: Tenant) -> UUID:
    async with database.tenant(tenant.schema) as session:
        directive = Directive(
            id=new_id(), type="test.say", params={"words": "x"}, idempotency_key="c",
            state="pending", actor="user:ada", changed_by="user:ada",
        )  # fmt: skip
        session.add(directive)
        await session.flush()
        return directive.id


async def test_a_finished_directive_cannot_be_cancelled(database: Database, tenant: Tenant) -> None:
    directive_id = await pending(database, tenant)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE directives SET state = 'failed', finished_at = now(), changed_by = 't'"
                " WHERE id = :id"
            ),
            {"id": directive_id},
        )
    async with database.tenant(tenant.schema) as session:
        with pytest.raises(ConflictError, match="failed"):
            await service.cancel(session, tenant, directive_id, ADMIN, types=TYPES)


async def test_lists_page_newest_first_by_id(database: Database, tenant: Tenant) -> None:
    made = [(await ask(database, tenant, f"k{i}"))[0] for i in range(5)]
    async with database.tenant(tenant.schema) as session:
        first = await service.list_directives(session, limit=3)
        rest = await service.list_directives(session, limit=3, before=first[-1].id)
        none = await service.list_directives(session, state="running")
    assert [d.id for d in [*first, *rest]] == made[::-1]
    assert none == []
