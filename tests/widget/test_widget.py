"""The widget's own tests and its build, from a clean checkout, as part of the whole suite."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

WIDGET = Path(__file__).parents[2] / "widget"
MADE = shutil.ignore_patterns("node_modules", "dist", "build")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def widget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the locked packages installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not installed; the widget needs Node 20 or newer")
    version = run(Path.cwd(), "node", "--version")
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.fail(f"Node {version.strip()} is too old; the widget needs Node 20 or newer")
    copy = tmp_path_factory.mktemp("checkout") / "widget"
    shutil.copytree(WIDGET, copy, ignore=MADE)
    run(copy, "npm", "ci")
    return copy


def run(folder: Path, *command: str) -> str:
    """The command's output; fails with all it said when it does not end with 0."""
    result = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}")
    return result.stdout


def test_the_widgets_own_tests_pass(widget: Path) -> None:
    told = run(widget, "npm", "test")
    passed = re.search(r"^(?:#|ℹ) pass (\d+)$", told, re.MULTILINE)
    assert passed is not None, told
    assert int(passed[1]) > 0


def test_it_builds_within_its_budget_of_8_kb(widget: Path) -> None:
    told = run(widget, "npm", "run", "build")
    weighed = re.search(r"^everything +(\d+) B gzip of 8192 B", told, re.MULTILINE)
    assert weighed is not None, told
    assert 0 < int(weighed[1]) <= 8192
    bundle = (widget / "dist" / "chat.js").read_text()
    assert "EventStreamReader" in bundle
    assert not re.search(r"\bfrom\s*[\"']", bundle), "the bundle imports something"


def test_a_bundle_over_budget_fails_the_build(widget: Path) -> None:
    script = (widget / "build.mjs").read_text()
    tight = widget / "tight.mjs"
    tight.write_text(script.replace("budget: 8 * 1024", "budget: 100"))
    result = subprocess.run(
        ["node", tight.name, "--size"],
        cwd=widget,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "over budget" in result.stderr


def test_the_versions_are_exact_and_the_lock_names_no_registry() -> None:
    manifest = json.loads((WIDGET / "package.json").read_text())
    assert manifest["private"] is True
    assert "dependencies" not in manifest
    for name, version in manifest["devDependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
    lock = (WIDGET / "package-lock.json").read_text()
    assert "http" not in lock
    locked = json.loads(lock)["packages"]
    assert all("integrity" in entry for path, entry in locked.items() if path)
