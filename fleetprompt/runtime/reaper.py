"""No orphan is left behind, even if the process that started the children is killed outright.

``Reaper`` starts one small helper process that waits at the end of a pipe. When the pipe breaks
(its owner is gone, for whatever reason, SIGKILL included) the helper stops every process group
it was told about. A pipe is used in place of ``PR_SET_PDEATHSIG`` because that signal reaches
direct children only (Dagster's code server has children of its own), fires when the *thread* that
started the child ends, and does not exist on macOS.

This file is also the helper's program and therefore imports the standard library alone.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_SECONDS = 10.0


class Reaper:
    """Guards process groups for as long as this process lives; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[bytes] | None = None

    def guard(self, group: int, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Stop process group ``group`` with ``stop_signal`` if this process goes away.

        What still lives ten seconds later is killed.
        """
        self._tell(f"guard {group} {int(stop_signal)}\n")

    def release(self, group: int) -> None:
        """Forget ``group``: it has ended, and its number may be given to someone else."""
        self._tell(f"release {group}\n")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._helper is None or self._helper.poll() is not None:
                self._helper = self._start()
            assert self._helper.stdin is not None  # noqa: S101 - opened with a pipe
            self._helper.stdin.write(line.encode())

    def _start(self) -> subprocess.Popen[bytes]:
        helper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            start_new_session=True,
        )
        atexit.register(_dismiss, helper)
        return helper


def _dismiss(helper: subprocess.Popen[bytes]) -> None:
    if helper.stdin is not None:
        helper.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        helper.wait(_GRACE_SECONDS + 5)


reaper = Reaper()


def _signal_group(group: int, number: int) -> bool:
    """Whether the group still has a member (zombies that nobody waited for included)."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        word, group, *rest = line.split()
        if word == "guard":
            groups[int(group)] = int(rest[0])
        else:
            groups.pop(int(group), None)
    for group, number in groups.items():
        _signal_group(group, number)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(_signal_group(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        _signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    _main()
