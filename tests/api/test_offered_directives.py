"""The registry over HTTP: the list of types, and the bodies in the OpenAPI document."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app
from jsonschema import Draft202012Validator

from fleetprompt.directives.types import directive_types
from fleetprompt.settings import Settings
from tests.api.open_directives import Workshop
from tests.api.support import calling, problem_id

URL = "/api/v1/directive-types"
OPEN = {"test.write", "test.announce", "test.weigh", "test.carry"}


def _document(settings: Settings) -> dict[str, Any]:
    return create_app(settings, Workshop().types()).openapi()


def _body(document: dict[str, Any]) -> Draft202012Validator:
    """The schema of what may be sent."""
    content = document["paths"]["/api/v1/directives"]["post"]["requestBody"]["content"]
    (reference,) = content["application/json"]["schema"].items()
    whole = {reference[0]: reference[1], "components": document["components"]}
    return Draft202012Validator(whole)


async def test_every_type_is_listed_with_all_that_is_to_know_of_it(
    owner_client: httpx.AsyncClient,
) -> None:
    listed = {one["name"]: one for one in (await owner_client.get(URL)).json()["items"]}
    assert list(listed) == sorted(directive_types())
    for name, kind in directive_types().items():
        shown = listed[name]
        assert shown["summary"] == kind.summary
        assert shown["roles"] == sorted(kind.roles)
        assert (shown["target"], shown["over_http"]) == (kind.target, kind.over_http)
        assert (shown["timeout_seconds"], shown["concurrency"]) == (kind.timeout, kind.concurrency)
        assert shown["retry"]["max_attempts"] == kind.retry.max_attempts
        assert shown["params"] == kind.params.model_json_schema()
        assert ("request" in shown["links"]) == kind.over_http
        policy = await owner_client.get(shown["links"]["approval_policy"])
        assert policy.json()["required"] == (shown["approval"] is not None)


async def test_the_list_is_sent_again_only_when_it_has_changed(
    settings: Settings, app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    first = await owner_client.get(URL)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await owner_client.get(URL, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    for other in ('"other"', tag.strip('"'), ""):
        again = await owner_client.get(URL, headers={"If-None-Match": other})
        assert (again.status_code, again.json()) == (200, first.json())
    token = owner_client.headers["authorization"].removeprefix("Bearer ")
    changed = create_app(settings, Workshop().types())
    async with changed.router.lifespan_context(changed), calling(changed, token) as client:
        new = await client.get(URL, headers={"If-None-Match": tag})
    assert new.status_code == 200
    assert new.headers["etag"] != tag
    weigh = next(one for one in new.json()["items"] if one["name"] == "test.weigh")
    assert weigh["approval"]["roles"] == ["admin", "owner"]
    assert weigh["links"]["request"] == "/api/v1/directives"


async def test_types_with_endpoints_of_their_own_are_refused_here_and_not_in_the_document(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    """Those make other rows as well, or are the platform's own."""
    open_types = sorted(kind.name for kind in directive_types().values() if kind.over_http)
    assert "email.send" in open_types
    body = app.openapi()["components"]["schemas"]["NewDirective"]
    assert sorted(body["discriminator"]["mapping"]) == open_types
    for name in set(directive_types()) - set(open_types):
        answer = await owner_client.post(
            "/api/v1/directives",
            json={"type": name, "params": {}},
            headers={"Idempotency-Key": name},
        )
        assert problem_id(answer, 422) == "invalid"
        assert answer.json()["errors"][0] == {
            "pointer": "/type",
            "detail": f"one of: {', '.join(open_types)}",
        }


def test_the_document_tells_the_open_types_apart_and_no_other(settings: Settings) -> None:
    document = _document(settings)
    schemas = document["components"]["schemas"]
    union = schemas["NewDirective"]
    mapping = union["discriminator"]["mapping"]
    assert set(mapping) == OPEN
    assert {one["$ref"] for one in union["oneOf"]} == set(mapping.values())
    for name, reference in mapping.items():
        body = schemas[reference.rpartition("/")[2]]
        assert body["properties"]["type"]["const"] == name
        assert ("target" in body["required"]) == (name == "test.carry")
        assert ("target" in body["properties"]) == (name == "test.carry")
    assert "test.apart" not in str(schemas)


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({"type": "test.write", "params": {"words": "a"}}, True),
        ({"type": "test.write", "params": {"words": "a", "margin": {"left": 3}}}, True),
        ({"type": "test.write", "params": {"words": "a"}, "priority": 100}, True),
        ({"type": "test.carry", "params": {}, "target": "laptop"}, True),
        ({"type": "test.write", "params": {"words": "a", "margin": {"left": -3}}}, False),
        ({"type": "test.write", "params": {"words": "a"}, "priority": 101}, False),
        ({"type": "test.write", "params": {"words": "a"}, "target": "laptop"}, False),
        ({"type": "test.write", "params": {"words": "a"}, "loud": True}, False),
        ({"type": "test.write", "params": {"words": 1}}, False),
        ({"type": "test.write", "params": {"words": "a", "where": "sky"}}, False),
        ({"type": "test.write"}, False),
        ({"type": "test.carry", "params": {}}, False),
        ({"type": "test.apart", "params": {"words": "a"}}, False),
    ],
)
async def test_the_document_and_the_endpoint_take_and_refuse_the_same(
    settings: Settings, owner_client: httpx.AsyncClient, body: dict[str, Any], good: bool
) -> None:
    assert _body(_document(settings)).is_valid(body) == good
    app = create_app(settings, Workshop().types())
    token = owner_client.headers["authorization"].removeprefix("Bearer ")
    async with app.router.lifespan_context(app), calling(app, token) as client:
        answer = await client.post(
            "/api/v1/directives", json=body, headers={"Idempotency-Key": "k"}
        )
        assert answer.status_code == (202 if good else 422), answer.text
        reference = (await client.get("/docs")).text
        assert "NewDirective.test.write" in reference
