"""Every trap of research/edge.md (b), 1 to 48, has a test that names it, or a reason why it has none."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TESTED = re.compile(r"^\s*(?:async )?def (test_\w+)|^class (Test\w+)", re.MULTILINE)
_NUMBERS = re.compile(r"traps?[ _]((?:\d+(?:_and_|_|, | and )?)+)", re.IGNORECASE)
_REASON = re.compile(r"^\| (\d+) \| \S.*\|$", re.MULTILINE)


def _tested() -> dict[int, list[str]]:
    """The tests that name a trap, by the trap's number."""
    found: dict[int, list[str]] = {}
    for folder in ("edge", "connectors"):
        for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
            for match in _TESTED.finditer(path.read_text()):
                name = match[1] or match[2]
                for numbers in _NUMBERS.findall(name):
                    for number in re.findall(r"\d+", numbers):
                        found.setdefault(int(number), []).append(f"{path.name}::{name}")
    return found


def _reasons() -> set[int]:
    written = ROOT / "docs" / "decisions" / "edge-traps.md"
    return {int(one) for one in _REASON.findall(written.read_text())} if written.exists() else set()


@pytest.mark.parametrize("number", range(1, 49))
def test_each_trap_of_the_connector_is_tested_or_excused(number: int) -> None:
    assert number in _tested() or number in _reasons(), f"trap {number} is named nowhere"
