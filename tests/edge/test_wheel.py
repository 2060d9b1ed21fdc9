"""The wheel that a customer installs, run with the standard library and nothing else."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

EDGE = Path(__file__).parents[2] / "edge"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=EDGE, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("fleetprompt_edge-*.whl")
    return built


def run(wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command from the wheel, without site-packages (``-S``) and environment (``-I``)."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from fleetprompt_edge.cli import main; sys.exit(main(sys.argv[2:]))"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(wheel), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_wheel_runs_alone(wheel: Path, tmp_path: Path) -> None:
    profile = str(tmp_path / "profile.toml")
    given = ("--base-url", "https://fleetprompt.example", "--username", "me")
    for arguments in (
        ("--version",),
        ("init", "--profile", profile, *given),
        ("config", "check", "--profile", profile),
        ("config", "show", "--profile", profile),
    ):
        result = run(wheel, *arguments)
        assert result.returncode == 0, result.stderr
        assert result.stdout
    assert run(wheel, "config", "check", "--profile", str(tmp_path / "none")).returncode == 2


def test_the_wheel_has_the_command_its_types_and_nothing_of_ours_besides(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "fleetprompt-edge = fleetprompt_edge.cli:main" in archive.read(entry_points).decode()
    assert "fleetprompt_edge/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"fleetprompt_edge"}
