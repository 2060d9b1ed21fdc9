"""Every trap of research/widget.md §5, 1 to 57, has a test that names it, or a reason written."""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Where the chat is tested; tests elsewhere name other tables' traps.
_PLACES = (
    *("tests/webchat/test_*.py", "tests/api/webchat/test_*.py", "tests/widget/test_*.py"),
    *("tests/packages/test_website_chat*.py", "tests/e2e/test_chat*.py"),
)
_UNITS = "widget/test/*.test.ts"  # run by tests/widget
_NAME = re.compile(r"_t(\d+)(?=_)|_trap_(\d+)(?=_)|_and_(\d+)(?=_)")
_TOLD = re.compile(r"\b[Tt]raps? (\d+(?:(?:, | and )\d+)*)")
_REASON = re.compile(r"^\| (\d+) \| \S.*\|$", re.MULTILINE)


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    """Names and docstrings of a file's tests."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test"
        ):
            yield node.name, ast.get_docstring(node) or ""


def _told(text: str) -> set[int]:
    return {int(one) for told in _TOLD.findall(text) for one in re.findall(r"\d+", told)}


@lru_cache(maxsize=1)
def _tested() -> dict[int, list[str]]:
    """Which tests name which trap."""
    found: dict[int, list[str]] = {}
    for place in _PLACES:
        for path in sorted(ROOT.glob(place)):
            for name, docstring in _tests(path):
                in_name = {int("".join(one)) for one in _NAME.findall(name)}
                for number in in_name | _told(docstring):
                    found.setdefault(number, []).append(f"{path.name}::{name}")
    for path in sorted(ROOT.glob(_UNITS)):
        for name in re.findall(r"\btest\(\s*\"([^\"]+)\"", path.read_text(encoding="utf-8")):
            for number in _told(name):
                found.setdefault(number, []).append(f"{path.name}::{name}")
    return found


def _excused() -> set[int]:
    """Traps whose page says why nothing can be tested."""
    page = ROOT / "docs" / "decisions" / "webchat-traps.md"
    return {int(one) for one in _REASON.findall(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("number", range(1, 58))
def test_each_trap_of_the_chat_is_tested_or_excused(number: int) -> None:
    assert number in _tested() or number in _excused(), f"trap {number} is named nowhere"


def test_no_trap_is_excused_that_has_a_test() -> None:
    assert sorted(_excused() & _tested().keys()) == []


def test_names_and_docstrings_are_read_as_they_are_written() -> None:
    assert _NAME.findall("test_t47_t49_a_first") == [("47", "", ""), ("49", "", "")]
    assert _NAME.findall("test_trap_14_both_and_15_takes") == [("", "14", ""), ("", "", "15")]
    assert _told("Traps 51 and 52: x. Trap 45, towards the team.") == {45, 51, 52}
