"""What holds for every operation, whatever it does; made from the OpenAPI document."""

import re
from collections.abc import Awaitable, Callable
from uuid import uuid4

from fastapi import FastAPI

from fleetprompt.db.engine import Database
from fleetprompt.tenants.keys import Scope
from fleetprompt.tenants.service import Tenant
from tests.api.operations import (
    NEEDS_NO_SCOPE,
    NOT_A_TENANTS_OWN,
    OPEN,
    STREAMS,
    objects_of,
    operations,
)
from tests.api.support import Keys, calling, problem_id

NewTenant = Callable[[], Awaitable[Tenant]]

_ANY = {
    name: str(uuid4())
    for name in (
        *("signal_id", "directive_id", "execution_id", "installation_id", "user_id", "key_id"),
        *("approval_id", "replay_id", "message_id", "connector_id"),
        *("site_id", "conversation_id"),
        "connector_directive_id",
        "correlation_id",
    )
} | {"slug": "nobody-here", "directive_type": "nobody.here"}


async def test_t23_another_tenants_object_is_missing_like_one_that_never_was(
    app: FastAPI, database: Database, keys: Keys, tenant: Tenant, new_tenant: NewTenant
) -> None:
    other = await new_tenant()
    own = await objects_of(database, keys, tenant)
    theirs = await objects_of(database, keys, other)
    checked = 0
    async with (
        calling(app, await keys.user(tenant)) as user,
        calling(app, await keys.connector(tenant)) as connector,
    ):
        for operation in operations(app):
            client = connector if operation.for_connectors else user
            if not operation.parameters or operation.id in NOT_A_TENANTS_OWN:
                continue
            unknown = set(operation.parameters) - set(theirs)
            assert not unknown, f"{operation.id}: teach objects_of to make {unknown}"
            foreign = await operation.call(client, theirs)
            missing = await operation.call(client, _ANY)
            assert problem_id(foreign, 404) == problem_id(missing, 404) == "not-found"
            assert _shape(foreign.text) == _shape(missing.text), operation.id
            assert set(foreign.headers) == set(missing.headers), operation.id
            checked += 1
        # The same ids are found by their own tenant, so the calls above asked for real objects.
        for operation in operations(app):
            if operation.parameters and operation.method == "GET":
                if operation.id in NOT_A_TENANTS_OWN:
                    continue
                answer = await operation.call(user, own)
                assert answer.status_code == 200, (operation.id, answer.text)
    assert checked >= 14


async def test_every_operation_but_health_and_pairing_needs_a_key(app: FastAPI, keys: Keys) -> None:
    found = list(operations(app))
    assert {one.id for one in found if not one.secured} == OPEN
    async with calling(app) as client:
        for operation in found:
            if operation.secured:
                answer = await operation.call(client, _ANY)
                assert problem_id(answer, 401) == "unauthenticated", operation.id


async def test_a_key_counts_in_the_header_alone(app: FastAPI, keys: Keys, tenant: Tenant) -> None:
    token = await keys.user(tenant)
    wrong = f"{token[:-1]}{'y' if token.endswith('x') else 'x'}"
    async with calling(app) as client:
        for query in ("access_token", "api_key", "key", "token"):
            answer = await client.get("/api/v1/me", params={query: token})
            assert problem_id(answer, 401) == "unauthenticated"
        for value in (token, f"Basic {token}", "Bearer", f"Bearer {wrong}", "Bearer é"):
            answer = await client.get("/api/v1/me", headers={b"Authorization": value.encode()})
            assert problem_id(answer, 401) == "unauthenticated"
            assert token not in answer.text


async def test_every_operation_refuses_a_key_without_its_scope(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with (
        calling(app, await keys.user(tenant, scopes=[Scope.SIGNALS_WRITE])) as writing,
        calling(app, await keys.user(tenant, scopes=[Scope.SIGNALS_READ])) as reading,
    ):
        for operation in operations(app):
            if not operation.secured or operation.id in NEEDS_NO_SCOPE:
                continue
            client = reading if operation.id.startswith("post_signals") else writing
            answer = await operation.call(client, _ANY)
            assert problem_id(answer, 403) == "forbidden", operation.id
            assert answer.json()["scope"] in set(Scope), operation.id


async def test_a_viewer_with_every_scope_changes_nothing(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with (
        calling(app, await keys.user(tenant, role="viewer")) as viewer,
        calling(app, await keys.operator("viewer")) as operator,
    ):
        refused = []
        for operation in operations(app):
            if operation.method == "GET" or operation.id.startswith("post_signals"):
                continue
            if operation.for_connectors or operation.id in OPEN:
                continue
            client = operator if "/tenants" in operation.path else viewer
            answer = await operation.call(client, _ANY)
            assert problem_id(answer, 403) == "forbidden", operation.id
            assert answer.json()["role"] in ("member", "admin", "owner"), operation.id
            refused.append(operation.id)
    assert len(refused) >= 12


async def test_connectors_operations_are_for_no_other_key_whatever_its_scopes_and_role(
    app: FastAPI, database: Database, keys: Keys, tenant: Tenant
) -> None:
    own = await objects_of(database, keys, tenant)
    async with (
        calling(app, await keys.user(tenant)) as user,
        calling(app, await keys.operator()) as operator,
    ):
        refused = [one for one in operations(app) if one.for_connectors]
        for operation in refused:
            for client in (user, operator):
                answer = await operation.call(client, own)
                assert problem_id(answer, 403) == "forbidden", operation.id
    assert len(refused) == 3


async def test_reading_answers_what_the_document_says(
    app: FastAPI, database: Database, keys: Keys, tenant: Tenant
) -> None:
    own = await objects_of(database, keys, tenant)
    async with (
        calling(app, await keys.user(tenant)) as user,
        calling(app, await keys.connector(tenant)) as connector,
    ):
        for operation in operations(app):
            client = connector if operation.for_connectors else user
            if operation.method != "GET" or operation.id in STREAMS | NOT_A_TENANTS_OWN:
                continue
            if "/tenants" in operation.path:
                continue
            answer = await operation.call(client, own)
            # Directives that other tests left in this database may have stood still for long.
            expected = (200, 503) if operation.id == "moving" else (200,)
            assert answer.status_code in expected, (operation.id, answer.text)
            assert answer.headers["content-type"] == "application/json"
            for time in re.findall(r'"(\d{4}-\d\d-\d\dT[^"]*)"', answer.text):
                assert time.endswith("Z"), (operation.id, time)


async def test_unknown_paths_and_methods_are_problems(app: FastAPI) -> None:
    async with calling(app) as client:
        assert problem_id(await client.get("/api/v1/nothing"), 404) == "not-found"
        answer = await client.delete("/api/v1/signals")
        assert problem_id(answer, 405) == "method-not-allowed"
        assert answer.headers["allow"] == "GET, POST"


async def test_every_answer_carries_an_id_and_the_security_headers(app: FastAPI) -> None:
    async with calling(app) as client:
        given = await client.get("/health/live", headers={"X-Request-Id": "abc-1.2_3"})
        assert given.headers["x-request-id"] == "abc-1.2_3"
        for bad in ("a b", "x" * 129, "-a", "ä", "a\tb"):
            answer = await client.get("/health/live", headers={b"X-Request-Id": bad.encode()})
            assert answer.headers["x-request-id"] != bad
        assert given.headers["x-content-type-options"] == "nosniff"
        assert given.headers["content-security-policy"].startswith("default-src 'none'")


def _shape(text: str) -> str:
    """The body without the ids in it."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", text)
