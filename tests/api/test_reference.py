"""Docs that drift fail here (trap T50)."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fleetprompt_api.problems import PROBLEMS_PATH, problem_types

from fleetprompt.tenants.keys import Scope
from tests.api.support import calling


def _rows(page: Path) -> dict[str, str]:
    """First column without its marks → the row."""
    found = re.findall(r"^\| `([^`]+)` (\|.*)$", page.read_text(), re.MULTILINE)
    return dict(found)


def test_t50_every_problem_is_documented_with_its_status(repository: Path) -> None:
    rows = _rows(repository / "docs/reference/problems.md")
    assert {name: int(row.split("|")[1]) for name, row in rows.items()} == {
        kind.id: kind.status for kind in problem_types().values()
    }


def test_t50_every_scope_is_documented(repository: Path) -> None:
    assert set(_rows(repository / "docs/reference/scopes.md")) == {one.value for one in Scope}


@pytest.mark.parametrize("path", ["/docs", PROBLEMS_PATH])
async def test_a_page_needs_nothing_from_elsewhere_and_no_script(app: FastAPI, path: str) -> None:
    async with calling(app) as client:
        page = await client.get(path)
        assert page.status_code == 200
        assert "script" not in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert "`" not in page.text
        for address in re.findall(r'(?:href|src)="([^"#]+)', page.text):
            assert address.startswith("/"), address
            assert (await client.get(address)).status_code == 200


async def test_a_problems_type_is_an_anchor_on_its_page(app: FastAPI) -> None:
    async with calling(app) as client:
        page = (await client.get(PROBLEMS_PATH)).text
    for name in problem_types():
        assert f'id="{name}"' in page


async def test_the_reference_names_every_operation(app: FastAPI) -> None:
    async with calling(app) as client:
        page = (await client.get("/docs")).text
        document = (await client.get("/api/v1/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}</code>" in page
            assert operation["tags"]
            assert operation.get("description") or operation.get("summary")


async def test_every_operation_has_an_id_of_its_own(app: FastAPI) -> None:
    operations = [one for path in app.openapi()["paths"].values() for one in path.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
