"""Every trap of Dagster is on its page, and every test that the page names is there."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\d+) \| [^|]+ \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> dict[int, str]:
    page = (ROOT / "docs/decisions/dagster-traps.md").read_text()
    return {int(number): shown for number, shown in _ROW.findall(page)}


@lru_cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("number", range(1, 26))
def test_each_trap_names_tests_that_are_there(number: int) -> None:
    named = _TEST.findall(rows()[number])
    assert named, f"trap {number} names no test"
    for file, name in named:
        assert name in names_in(file), f"trap {number}: {file}::{name}"


def test_trap_18_no_test_of_dagster_uses_an_instance_that_forgets() -> None:
    for path in (ROOT / "tests/dagster").glob("*.py"):
        assert ".ephemeral(" not in path.read_text(), path.name
