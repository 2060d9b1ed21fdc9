"""The command as a customer runs it: what it prints, its exit codes, what it loads."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from uuid import UUID

import fleetprompt_edge
import pytest
from fleetprompt_edge.cli import main
from fleetprompt_edge.reading import default_path

URL = "https://fleetprompt.example"


def init(path: Path, *more: str) -> int:
    return main(["init", "--profile", str(path), "--base-url", URL, "--username", "me", *more])


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fleetprompt-edge {fleetprompt_edge.__version__}\n"
    assert main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": fleetprompt_edge.__version__}
    assert importlib.metadata.version("fleetprompt-edge") == fleetprompt_edge.__version__


def test_init_then_check_then_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "profile.toml"
    assert init(path) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "config check" in capsys.readouterr().out
    assert main(["config", "check", "--profile", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: in order\n"
    assert main(["config", "show", "--profile", str(path)]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["fleetprompt"]["base_url"] == URL
    assert shown["mailbox"]["poll_interval_seconds"] == 30


def test_the_same_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profile.toml"
    assert main(["init", "--profile", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["profile"] == str(path)
    assert UUID(told["connector_id"]).version == 4
    assert told["missing"] == ["fleetprompt.base_url", "bridge.username"]

    assert main(["config", "check", "--profile", str(path), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [problem["key"] for problem in told["problems"]] == [
        "fleetprompt.base_url",
        "bridge.username",
    ]

    path.unlink()
    assert init(path) == 0
    capsys.readouterr()
    assert main(["config", "check", "--profile", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "profile": str(path),
        "problems": [],
    }
    assert main(["config", "show", "--profile", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["values"]["bridge.imap.port"] == 1143
    assert "bridge.imap.port" in told["defaults"]
    assert "fleetprompt.base_url" not in told["defaults"]


def test_init_never_changes_a_profile_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "profile.toml"
    assert init(path) == 0
    before = path.read_bytes()
    assert init(path) == 2
    assert "exists already and was not changed" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_init_with_an_unfit_value_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "profile.toml"
    assert init(path, "--base-url", "http://fleetprompt.example") == 2
    assert "--base-url must begin with https://" in capsys.readouterr().err
    assert not path.exists()


def test_init_where_nothing_can_be_written_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert init(tmp_path / "file" / "profile.toml") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_problems_name_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profile.toml"
    init(path)
    path.write_text(path.read_text().replace("# idle = true", "idel = true"))
    capsys.readouterr()
    for action in ("check", "show"):
        assert main(["config", action, "--profile", str(path)]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err == (f"{path}: mailbox.idel is not an option; do you mean mailbox.idle?\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["config"],
        ["queue"],
        ["--verbose"],
        ["init", "x"],
        ["pair"],
        ["queue", "drop"],
        ["audit"],
    ],
)
def test_a_command_line_that_is_not_understood_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: fleetprompt-edge" in capsys.readouterr().err


def test_every_command_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = capsys.readouterr().out
    assert "Exit codes: 0" in offered
    for now in (
        "init",
        "pair",
        "run",
        "status",
        "doctor",
        "queue",
        "audit",
        "backfill",
        "explain-payload",
        "service",
        "support-bundle",
        "debug",
    ):
        assert now in offered


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["status"],
        ["doctor"],
        ["audit", "--since", "2026-01-31"],
        ["backfill", "--since", "2026-01-31T09:00:00+01:00"],
        ["explain-payload", "7"],
        ["queue", "list"],
        ["queue", "retry", "--all"],
        ["secrets", "list"],
        ["secrets", "set", "api-key"],
        ["service", "install", "--print"],
        ["support-bundle"],
        ["debug", "on"],
    ],
    ids=" ".join,
)
def test_every_command_needs_a_profile_and_says_so(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json", "--profile", str(tmp_path / "none")]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert "fleetprompt-edge init" in told["problems"][0]["message"]


@pytest.mark.parametrize("wrong", ["yesterday", "2026-13-01", ""])
def test_a_time_that_is_none_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--since", wrong])
    assert "such as 2026-01-31" in capsys.readouterr().err


def test_the_profile_is_found_by_argument_environment_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLEETPROMPT_EDGE_PROFILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    assert default_path() == tmp_path / "configuration" / "fleetprompt-edge" / "profile.toml"
    monkeypatch.setenv("FLEETPROMPT_EDGE_PROFILE", str(tmp_path / "mine.toml"))
    assert default_path() == tmp_path / "mine.toml"
    assert main(["init"]) == 0
    assert (tmp_path / "mine.toml").exists()


def test_it_runs_as_a_module_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    result = run("-m", "fleetprompt_edge", "config", "check", "--profile", str(tmp_path / "none"))
    assert result.returncode == 2
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_loads_no_server_library_and_nothing_of_the_platform() -> None:
    script = (
        "import sys; before = set(sys.modules); from fleetprompt_edge.cli import main\n"
        "main(['--version']); print(*sorted(set(sys.modules) - before))"
    )
    result = run("-c", script)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.splitlines()[-1].split())
    roots = {name.partition(".")[0] for name in loaded}
    assert "fleetprompt_edge" in roots
    outside = roots - set(sys.stdlib_module_names) - {"fleetprompt_edge"}
    assert outside == set()
    # What a version needs not: the checks, TOML, dataclasses.
    assert not loaded & {"fleetprompt_edge.profile", "tomllib", "dataclasses", "json"}


def test_checking_a_profile_loads_the_standard_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    init(path)
    script = (
        "import sys; before = set(sys.modules); from fleetprompt_edge.cli import main\n"
        f"main(['config', 'check', '--profile', {str(path)!r}])\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    result = run("-c", script)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.splitlines()[-1].split())
    assert loaded - set(sys.stdlib_module_names) == {"fleetprompt_edge"}
