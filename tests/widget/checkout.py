"""The widget's sources in a folder of their own, with the locked packages, and what is built there."""

import shutil
import subprocess
from pathlib import Path

WIDGET = Path(__file__).parents[2] / "widget"
MADE = shutil.ignore_patterns("node_modules", "dist", "build")


def run(folder: Path, *command: str) -> str:
    """The command's output; raises with all it said when it does not end with 0."""
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
        said = f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}"
        raise AssertionError(said)
    return result.stdout


def axe_source(folder: Path) -> str:
    """The accessibility checker, from the packages that are installed or else are in ``folder``."""
    place = Path("node_modules", "axe-core", "axe.min.js")
    if not (WIDGET / place).is_file():
        return (checkout(folder) / place).read_text()
    return (WIDGET / place).read_text()


def checkout(folder: Path) -> Path:
    """A copy of the sources in ``folder`` with the locked packages installed."""
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program} is not installed; the widget needs Node 20"
    version = run(folder, "node", "--version").strip()
    assert int(version.removeprefix("v").partition(".")[0]) >= 20, f"Node {version} is too old"
    copy = folder / "widget"
    shutil.copytree(WIDGET, copy, ignore=MADE)
    run(copy, "npm", "ci", "--prefer-offline")
    return copy
