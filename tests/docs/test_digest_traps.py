"""Every trap of research/mattermost_digest.md (c), 1 to 42, has a test that names it, or a reason written."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Where the digest is tested; tests elsewhere name other tables' traps.
_PLACES = (
    "packages/test_digest_*.py",
    "packages/test_email_digest*.py",
    "outbound/test_*.py",
    "schedules/test_*.py",
    "doubles/test_mattermost_*.py",
    "chaos/test_posting_kills.py",
    "chaos/test_mail_kills.py",
)
_NAMED = re.compile(r"_traps?((?:_(?:and_)?\d+)+)(?=_|$)|_t(\d+)(?=_)")
_TOLD = re.compile(r"\b[Tt]raps? (\d+(?:(?:, | and | to )\d+)*)")
_REASON = re.compile(r"^\| (\d+) \| \S.*\|$", re.MULTILINE)


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    """Names and docstrings of a file's tests."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test"
        ):
            yield node.name, ast.get_docstring(node) or ""


def _numbers(text: str) -> Iterator[int]:
    """``1 to 4, 11 and 12``: 1, 2, 3, 4, 11, 12."""
    for part in re.findall(r"\d+ to \d+|\d+", text):
        first, _, last = part.partition(" to ")
        yield from range(int(first), int(last or first) + 1)


def _tested() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for place in _PLACES:
        for path in sorted((ROOT / "tests").glob(place)):
            for name, told in _tests(path):
                said = [first or second for first, second in _NAMED.findall(name)]
                said += _TOLD.findall(told)
                for number in {number for one in said for number in _numbers(one)}:
                    found.setdefault(number, []).append(f"{path.name}::{name}")
    return found


def _reasons() -> set[int]:
    page = ROOT / "docs" / "decisions" / "digest-traps.md"
    return {int(one) for one in _REASON.findall(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("number", range(1, 43))
def test_each_trap_of_the_digest_is_tested_or_excused(number: int) -> None:
    assert number in _tested() or number in _reasons(), f"trap {number} is named nowhere"


def test_numbers_are_read_as_people_write_them() -> None:
    assert [*_numbers("1 to 4, 11 and 12")] == [1, 2, 3, 4, 11, 12]
    assert _NAMED.findall("test_traps_14_15_16_42_whatever") == [("_14_15_16_42", "")]
    assert _TOLD.findall("Traps 18, 19 and 37: x. Trap T44.") == ["18, 19 and 37"]
