"""The code location as it is installed: from the wheel, with no source tree around it."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

_VALIDATE = """
import runpy, sys
import fleetprompt_dagster
from fleetprompt.runtime.environment import shipped_dagster_yaml
print(fleetprompt_dagster.__file__, shipped_dagster_yaml(), flush=True)
sys.argv = ["dagster", "definitions", "validate", "-w", "workspace.yaml"]
runpy.run_module("dagster", run_name="__main__")
"""


@pytest.mark.slow
def test_trap_19_the_code_location_loads_from_the_wheel_in_any_folder(
    repository: Path, tmp_path: Path
) -> None:
    """Dagster's own loaders of definitions look for a pyproject.toml above the package; ours do not."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    [wheel] = tmp_path.glob("fleetprompt-*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere.mkdir()
    (elsewhere / "workspace.yaml").write_text((repository / "workspace.yaml").read_text())
    shown = subprocess.run(
        [sys.executable, "-c", _VALIDATE],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site), "DAGSTER_HOME": str(elsewhere)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    loaded, configuration = shown.stdout.splitlines()[0].split()
    assert Path(loaded) == site / "fleetprompt_dagster/__init__.py"
    assert Path(configuration) == site / "fleetprompt/runtime/dagster.yaml"
    assert "All code locations passed validation" in shown.stdout + shown.stderr
