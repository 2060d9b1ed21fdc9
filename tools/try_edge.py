"""Try built connectors where there is no Python, and measure them: ``tools/try_edge.py PROGRAM …``.

Each program runs with an empty environment, a PATH that leads nowhere and a home of its own: version,
profile, secrets in an encrypted file, status, doctor. Any traceback, or an answer that is not the expected
one, ends it.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS = 7  # for the start-up time, of which the quickest counts


def main(programs: list[Path]) -> None:
    """Try each program; print its size and how long ``--version`` and ``config check`` take."""
    print(f"{'program':44} {'size':>9} {'--version':>10} {'config check':>13}")
    for program in programs:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            _try(program, home)
            check = ("config", "check", "--profile", str(home / "profile.toml"))
            version, checked = (
                _quickest(program, home, "--version"),
                _quickest(program, home, *check),
            )
        size = _size(program) / 1_000_000
        name = "/".join(program.parts[-3:])
        print(f"{name:44} {size:6.1f} MB {version:8.2f} s {checked:11.2f} s")


def _try(program: Path, home: Path) -> None:
    profile = ("--profile", str(home / "profile.toml"), "--json")
    given = ("--base-url", "https://127.0.0.1:9", "--username", "me")
    _expect(program, home, 0, "--version")
    _expect(program, home, 0, "init", *profile, *given)
    _expect(program, home, 0, "secrets", "new-key", str(home / "keys" / "key"))
    text = (home / "profile.toml").read_text()
    text = text.replace('# store = "auto"', 'store = "file"')
    key_file = json.dumps(str(home / "keys" / "key"))
    (home / "profile.toml").write_text(text.replace('# key_file = "…"', f"key_file = {key_file}"))
    for name in ("bridge-password", "api-key"):
        _expect(program, home, 0, "secrets", "set", name, *profile, given="canary\n")
    said = _answer(program, home, 0, "secrets", "list", *profile)
    _must(set(said["secrets"].values()) == {"encrypted file"}, said)
    _must(_answer(program, home, 1, "status", *profile)["ok"] is False, "status")
    checks = _answer(program, home, 1, "doctor", *profile)["checks"]
    found = {one["name"]: one["state"] for one in checks}
    _must(found["database"] == found["bridge password"] == "well", found)
    _must(found["bridge port"] == found["platform"] == "bad", found)
    _serve(program, home)
    _answer(program, home, 0, "support-bundle", *profile, "--output", str(home / "bundle.zip"))


def _serve(program: Path, home: Path) -> None:
    """Run it as systemd would, which knows the process that it started and hears that one's child."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home / "notify"))
        manager.settimeout(60)
        environment = {
            "PATH": "/nonexistent",
            "HOME": str(home),
            "NOTIFY_SOCKET": str(home / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        line = 'export WATCHDOG_PID=$$; exec "$0" run --profile "$1"'
        started = ["/bin/sh", "-c", line, str(program), str(home / "profile.toml")]
        with subprocess.Popen(started, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                _must(manager.recv(4096).startswith(b"READY=1"), "not ready")
                _must(manager.recv(4096).startswith(b"WATCHDOG=1"), "the watchdog is not told")
                process.terminate()
                _must(process.wait(60) == 0, "it does not end as it should")
            finally:
                process.kill()


def _must(right: bool, found: object) -> None:
    if not right:
        sys.exit(f"not as expected: {found}")


def _answer(program: Path, home: Path, code: int, *arguments: str) -> Any:
    return json.loads(_expect(program, home, code, *arguments))


def _expect(program: Path, home: Path, code: int, *arguments: str, given: str = "") -> str:
    done = _run(program, home, *arguments, given=given)
    if done.returncode != code or "Traceback" in done.stderr:
        sys.exit(f"{program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _run(
    program: Path, home: Path, *arguments: str, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/nonexistent", "HOME": str(home)},
    )


def _quickest(program: Path, home: Path, *arguments: str) -> float:
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        _run(program, home, *arguments)
        times.append(time.perf_counter() - began)
    return min(times)


def _size(program: Path) -> int:
    """Bytes of the file, of the folder that it needs, or of what was installed with it."""
    installed = list(program.parents[1].glob("lib/python*/site-packages"))
    if not installed and not (program.parent / "_internal").exists():
        return program.stat().st_size
    root = installed[0] if installed else program.parent
    return sum(one.stat().st_size for one in root.rglob("*") if one.is_file())


if __name__ == "__main__":
    main([Path(one).absolute() for one in sys.argv[1:]])
