"""The page of directive types is written from the registry, so that it cannot tell anything else (T50)."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.failures import FAILURE_CLASSES
from fleetprompt.directives.types import RetryPolicy, directive_types
from fleetprompt.errors import ErrorKind


@pytest.fixture
def generator(repository: Path) -> ModuleType:
    """The tool that writes the page."""
    spec = importlib.util.spec_from_file_location("reference", repository / "tools/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_the_registry_says_and_is_stale_once_that_changes(
    generator: ModuleType, repository: Path
) -> None:
    page = (repository / "docs/reference/directives.md").read_text()
    types = dict(directive_types())
    assert generator.types_part(types) in page
    kind = types["digest.run"]
    changes = (
        replace(kind, summary="Sings."),
        replace(kind, roles=frozenset({"viewer"})),
        replace(kind, timeout=1.5),
        replace(kind, retry=RetryPolicy(max_attempts=3)),
        replace(kind, concurrency=7),
        replace(kind, approval=ApprovalPolicy(approvals=2)),
        replace(kind, over_http=True),
        replace(kind, params=types["package.install"].params),
        replace(kind, name="digest.sing"),
    )
    for changed in changes:
        assert generator.types_part({**types, kind.name: changed}) not in page, changed
    del types[kind.name]
    assert generator.types_part(types) not in page


def test_every_class_of_failure_is_told_with_its_rule(
    generator: ModuleType, repository: Path
) -> None:
    assert set(FAILURE_CLASSES) == set(get_args(ErrorKind))
    page = (repository / "docs/reference/directives.md").read_text()
    assert generator.failures_part() in page
    for kind, told in FAILURE_CLASSES.items():
        # A delay follows for exactly those that the page calls tried again.
        delay = RetryPolicy().delay(1, kind, None)
        assert (delay is not None) == (told.retried is not None), kind


def test_a_page_that_has_lost_its_marks_is_not_written(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "directives.md").write_text("# Directive types\n")
    monkeypatch.setattr(generator, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="lost its marks"):
        generator.directives_page()
