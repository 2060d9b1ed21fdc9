"""The registry of directive types, and that the reference tells of each."""

from pathlib import Path
from typing import get_args

import pytest

from fleetprompt.directives.types import directive_types, find_type
from fleetprompt.errors import ErrorKind, InvalidError


def test_the_reference_describes_every_type_with_its_params_roles_and_limits(
    repository: Path,
) -> None:
    """Trap T50."""
    page = (repository / "docs" / "reference" / "directives.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, kind in directive_types().items():
        row = rows[name]
        for field_name, field in kind.params.model_fields.items():
            param = field.alias or field_name
            assert f"`{param}`" in row, f"{name}: {param}"
        for role in kind.roles:
            assert role in row, f"{name}: {role}"
        assert f"| {kind.timeout:g} s | {kind.retry.max_attempts} |" in row, name
    for kind_of_failure in get_args(ErrorKind):
        assert kind_of_failure in rows


def test_every_type_has_a_handler_a_summary_and_a_name_of_dotted_words() -> None:
    types = directive_types()
    assert {"package.install", "digest.run"} <= set(types)
    for name, kind in types.items():
        assert name == kind.name
        assert all(part.isidentifier() for part in name.split("."))
        assert kind.summary.endswith(".")


def test_an_unknown_type_is_told_with_those_that_exist() -> None:
    with pytest.raises(InvalidError) as caught:
        find_type("digest.sing")
    assert "digest.run" in caught.value.errors[0]["detail"]
