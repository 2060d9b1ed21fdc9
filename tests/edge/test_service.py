"""The connector as a service: its unit, what it tells systemd, and where there is no systemd."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keyring
import pytest
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.profile import Secrets
from fleetprompt_edge.reading import load
from fleetprompt_edge.service.keeper import Keeper
from fleetprompt_edge.service.notice import Notice
from fleetprompt_edge.service.unit import Unit
from fleetprompt_edge.store import Store
from fleetprompt_edge.toml_text import flat, new_profile
from fleetprompt_edge.vault.file import FileVault
from fleetprompt_edge.vault.ring import RingVault

from tests.edge.connecting import Customer, until
from tests.edge.dovecot import PASSWORD
from tests.edge.in_process import alone, command, without_keyring
from tests.edge.ingesting import CONNECTOR
from tests.edge.test_vault import MemoryKeyring


@pytest.fixture
def home(tmp_path: Path) -> Customer:
    without_keyring()
    return alone(tmp_path / "home")


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's systemd that runs, as far as the command sees: its folder, and a systemctl that writes down
    what it is asked."""
    (tmp_path / "runtime" / "systemd").mkdir(parents=True)
    program = tmp_path / "programs" / "systemctl"
    program.parent.mkdir()
    calls = tmp_path / "calls"
    calls.touch()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        'case "$*" in *show*) printf "ActiveState=active\\nSubState=running\\nMainPID=7\\nNRestarts=0\\n'
        'StatusText=0 signals wait.\\n";; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("run_as", [None, "root"], ids=["user", "system"])
def test_systemd_finds_nothing_wrong_with_the_unit(run_as: str | None, tmp_path: Path) -> None:
    odd = tmp_path / 'a folder, 100% $HOME "quoted"'
    odd.mkdir()
    unit = Unit(odd / "profile.toml", odd / "state", odd / "key", run_as)
    path = tmp_path / "fleetprompt-edge.service"
    path.write_text(unit.text())
    manager = "--user" if run_as is None else "--system"
    done = subprocess.run(
        ["systemd-analyze", "verify", manager, "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_what_breaks_into_the_service_can_do_little(tmp_path: Path) -> None:
    """By systemd's own measure, from 0 (safe) to 10 (UNSAFE); a unit without hardening has 9.6."""
    path = tmp_path / "fleetprompt-edge.service"
    path.write_text(Unit(tmp_path / "p", tmp_path / "s", None, "nobody").text())
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=25",
            "--no-pager",
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_the_unit_starts_this_program_with_the_profile_and_its_state(home: Customer) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    code, told = command(home.profile, "service", "install", "--print", "--system", "--run-as", me)
    assert code == 0
    lines = told["unit"].splitlines()
    for wanted in (
        "Type=notify",
        f"User={me}",
        f"Environment=STATE_DIRECTORY={home.state}",
        f"ReadWritePaths={home.state}",
        f"LoadCredential=secrets-key:{home.key_file}",
        "WatchdogSec=180",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "WantedBy=multi-user.target",
    ):
        assert wanted in lines
    (start,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    program, *rest = start.split()
    assert rest[-3:] == ["run", "--profile", str(home.profile)]
    assert Path(program).exists()


def test_root_installs_it_with_the_state_of_the_person_who_paired(home: Customer) -> None:
    text = home.profile.read_text().replace("state_dir = ", "# state_dir = ")
    home.profile.write_text(text)
    nobody = pwd.getpwnam("nobody")
    line = ("service", "install", "--print", "--system", "--run-as")
    code, told = command(home.profile, *line, "nobody")
    assert code == 0
    state = f"{nobody.pw_dir}/.local/state/fleetprompt-edge/{CONNECTOR}"
    assert f"Environment=STATE_DIRECTORY={state}" in told["unit"].splitlines()
    code, told = command(home.profile, *line, "no-such-user")
    assert (code, told["error"]["code"]) == (2, "service")


def test_install_status_and_uninstall_of_a_users_service(home: Customer, systemctl: Path) -> None:
    code, told = command(home.profile, "service", "install", "--user")
    assert code == 0, told
    unit = Path(told["unit"])
    assert unit.parent == systemctl.parent / "configuration" / "systemd" / "user"
    assert f"FLEETPROMPT_EDGE_KEY_FILE={home.key_file}" in unit.read_text()
    assert "User=" not in unit.read_text()
    code, told = command(home.profile, "service", "status", "--user")
    assert (code, told["ActiveState"], told["MainPID"]) == (0, "active", "7")
    # Again is an upgrade; another profile under the same name is a mistake.
    assert command(home.profile, "service", "install", "--user")[0] == 0
    second = alone(home.folder.parent / "second")
    code, told = command(second.profile, "service", "install", "--user")
    assert code == 2
    assert "--name" in told["remedy"]
    assert command(second.profile, "service", "install", "--user", "--name", "second")[0] == 0
    assert command(home.profile, "service", "uninstall", "--user")[0] == 0
    assert not unit.exists()
    assert home.profile.exists()
    assert (home.state / "secrets.enc").exists()
    assert command(home.profile, "service", "uninstall", "--user")[0] == 2
    assert command(home.profile, "service", "status", "--user")[0] == 1
    asked = systemctl.read_text().splitlines()
    assert asked[:3] == [
        "--user --no-pager daemon-reload",
        "--user --no-pager enable fleetprompt-edge.service",
        "--user --no-pager restart fleetprompt-edge.service",
    ]
    assert "--user --no-pager disable --now fleetprompt-edge.service" in asked


def test_without_systemd_it_says_so_and_changes_nothing(
    home: Customer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    code, told = command(home.profile, "service", "install", "--user")
    assert (code, told["error"]["code"]) == (2, "service")
    assert "no running systemd" in told["error"]["message"]
    assert "fleetprompt-edge run" in told["remedy"]
    assert not (tmp_path / "configuration").exists()


def test_trap_43_a_service_of_the_system_is_not_left_without_its_keyring(home: Customer) -> None:
    profile, _ = load(home.profile)
    inside = replace(profile, secrets=Secrets(store="keyring"))
    values = {key: value for key, value in flat(inside).items() if value is not None}
    home.profile.write_text(new_profile(values))
    keyring.set_keyring(MemoryKeyring())
    for name in ("bridge-password", "api-key"):
        RingVault(profile.connector_id).put(name, "canary-71")
    code, told = command(home.profile, "service", "install", "--system")
    assert (code, told["error"]["code"]) == (2, "secret")
    assert "keyring" in told["error"]["message"]
    assert "--user" in told["remedy"]


def test_the_key_that_systemd_hands_over_is_taken_as_it_shows_it(
    home: Customer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd lets the service alone read a credential by an ACL, which shows as rights of a group."""
    handed = tmp_path / "credentials"
    handed.mkdir()
    (handed / "secrets-key").write_text(home.key_file.read_text())
    (handed / "secrets-key").chmod(0o440)
    home.key_file.unlink()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    assert FileVault(home.state, home.key_file).get("api-key") == "canary-key"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(30)
        yield found


def told(manager: socket.socket) -> dict[str, str]:
    lines = manager.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


@contextmanager
def hearing(manager: socket.socket) -> Iterator[list[dict[str, str]]]:
    """All that is said until the block ends, as systemd hears it: at once."""
    heard: list[dict[str, str]] = []
    over = threading.Event()
    manager.settimeout(0.2)

    def hear() -> None:
        while True:
            try:
                heard.append(told(manager))
            except TimeoutError:
                if over.is_set():
                    return

    thread = threading.Thread(target=hear)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_a_running_connector_tells_systemd_how_it_is_and_can_be_made_to_log_more(
    home: Customer, manager: socket.socket
) -> None:
    """Trap 41 too: the machine's list of processes shows no secret."""
    environment = {
        **home.environment(),
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "600000",
    }
    line = [sys.executable, "-m", "fleetprompt_edge", "run", "--profile", str(home.profile)]
    own = home.state / "connector.log"
    with (
        hearing(manager) as heard,
        (home.folder / "log").open("wb") as log,
        subprocess.Popen(line, env=environment, stderr=log) as process,
    ):
        try:
            alive = until(lambda: [one for one in heard if "bridge" in one["STATUS"]], "a problem")[
                0
            ]
            assert heard[0]["READY"] == "1"
            assert alive["WATCHDOG"] == "1"
            assert "Nothing listens" in alive["STATUS"]
            for name in ("cmdline", "environ"):
                shown = Path(f"/proc/{process.pid}/{name}").read_bytes()
                assert PASSWORD.encode() not in shown
                assert b"canary-key" not in shown
            assert command(home.profile, "debug", "on", "--minutes", "5")[0] == 0
            until(lambda: "debug logs on" in own.read_text(), "debug logs")
            assert command(home.profile, "debug", "off")[0] == 0
            until(lambda: "debug logs off" in own.read_text(), "an end of debug logs")
            assert own.stat().st_mode & 0o777 == 0o600
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert heard[-1]["STOPPING"] == "1"


def test_the_watchdog_is_not_told_while_the_store_hangs(
    store: Store, manager: socket.socket
) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "90000"}
    keeper = Keeper(store, Notice(environment), SystemClock())
    held, free = threading.Event(), threading.Event()

    def hang() -> None:
        with store.transaction():
            held.set()
            free.wait(30)

    hanging = threading.Thread(target=hang)
    hanging.start()
    assert held.wait(10)
    keeper.start()
    try:
        assert "READY" in told(manager)
        manager.settimeout(0.5)
        with pytest.raises(TimeoutError):
            told(manager)
        free.set()
        manager.settimeout(30)
        assert told(manager)["WATCHDOG"] == "1"
    finally:
        free.set()
        hanging.join()
        keeper.stop()


def test_the_watchdog_counts_for_the_process_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = {"WATCHDOG_USEC": "180000000"}
    parents = {**limit, "WATCHDOG_PID": str(os.getppid())}
    assert Notice({}).watched == 0
    assert Notice(limit).watched == 180
    assert Notice({**limit, "WATCHDOG_PID": str(os.getpid())}).watched == 180
    assert Notice(parents).watched == 0
    # The standalone program's parent unpacks it and waits.
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert Notice(parents).watched == 180


def test_without_systemd_nothing_is_told_and_an_abstract_socket_is_understood() -> None:
    Notice({}).say(READY="1")
    Notice({"NOTIFY_SOCKET": "/nonexistent/notify"}).say(READY="1")
    name = f"fleetprompt-edge-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(f"\0{name}")
        found.settimeout(10)
        Notice({"NOTIFY_SOCKET": f"@{name}"}).say(READY="1", STATUS="two\nlines")
        assert found.recv(100) == b"READY=1\nSTATUS=two lines"
