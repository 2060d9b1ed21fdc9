"""The supervisor with small real processes: order, restarts, clean stop, no orphan, taken ports."""

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from fleetprompt.runtime import probes
from fleetprompt.runtime.output import MergedLog
from fleetprompt.runtime.ports import Door, PortTakenError, refuse_taken
from fleetprompt.runtime.processes import ChildProcess, Program
from fleetprompt.runtime.supervisor import RestartPolicy, Supervisor, SupervisorError
from tests.ports import free_port

QUICK = RestartPolicy(attempts=2, first_pause=0.05, longest_pause=0.1)
FOREVER = "import time\nwhile True: time.sleep(60)"


class Lines:
    """A log that can be asked."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.all.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for process, line in self.all if process == name]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def child(
    lines: Lines,
    name: str,
    code: str,
    *arguments: str,
    after: Sequence[str] = (),
    ready: Callable[[], bool] | None = None,
    once: bool = False,
    ready_within: float = 20.0,
    stop_within: float = 5.0,
) -> ChildProcess:
    program = Program(
        name,
        [sys.executable, "-u", "-c", code, *arguments],
        {"PATH": "/usr/bin:/bin"},
        after=after,
        ready=ready,
        once=once,
        ready_within=ready_within,
        stop_within=stop_within,
    )
    return ChildProcess(program, lines)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_starts_in_order_of_need_and_stops_in_reverse(lines: Lines, tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    slow = (
        f"import time, pathlib; time.sleep(0.4); pathlib.Path({str(marker)!r}).touch()\n{FOREVER}"
    )
    see = f"import pathlib; print('base there:', pathlib.Path({str(marker)!r}).exists())\n{FOREVER}"
    stop_noted = "import signal, sys; signal.signal(15, lambda *a: (print('bye'), sys.exit(0)))\n"
    processes = [
        child(lines, "top", stop_noted + see, after=["base", "step"]),
        child(lines, "step", "print('stepped')", after=["base"], once=True),
        child(lines, "base", stop_noted + slow, ready=marker.exists),
    ]
    with Supervisor(processes, lines):
        assert until(lambda: bool(lines.of("top")))
        assert lines.of("top") == ["base there: True"]
        assert lines.of("step") == ["stepped"]
        pids = [process.pid for process in processes if process.pid]
        assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    goodbyes = [name for name, line in lines.all if line == "bye"]
    assert goodbyes == ["top", "base"]


def test_what_does_not_need_each_other_starts_at_once(lines: Lines) -> None:
    steps = [
        child(lines, name, "import time; time.sleep(0.8)", once=True) for name in ("a", "b", "c")
    ]
    begun = time.monotonic()
    with Supervisor(steps, lines):
        assert time.monotonic() - begun < 2.0


def test_a_dead_process_is_started_anew_and_its_last_lines_are_told(
    lines: Lines, tmp_path: Path
) -> None:
    code = (
        "import pathlib, sys, time\n"
        "p = pathlib.Path(sys.argv[1])\n"
        "first = not p.exists(); p.touch()\n"
        "time.sleep(0.3)\n"
        "if first: print('the reason why'); sys.exit(3)\n" + FOREVER
    )
    process = child(lines, "fragile", code, str(tmp_path / "ran"))
    with Supervisor([process], lines, restart=QUICK) as supervisor:
        first = process.pid
        assert until(lambda: process.pid not in (None, first))
        told = "\n".join(lines.of("supervisor"))
        assert "fragile ended with code 3; next start in 0.05 s" in told
        assert "the reason why" in told
        assert not supervisor.wait(0.3)


def test_a_killed_process_is_started_anew(lines: Lines) -> None:
    process = child(lines, "victim", FOREVER)
    with Supervisor([process], lines, restart=QUICK):
        first = process.pid
        assert first is not None
        psutil.Process(first).kill()
        assert until(lambda: process.pid not in (None, first))
    assert any("was killed by signal 9" in line for line in lines.of("supervisor"))


def test_gives_up_after_too_many_deaths_and_stops_the_others(lines: Lines) -> None:
    dying = child(
        lines, "dying", "import time; time.sleep(0.15); print('no way'); raise SystemExit(4)"
    )
    other = child(lines, "other", FOREVER)
    supervisor = Supervisor([other, dying], lines, restart=QUICK)
    supervisor.start()
    other_pid = other.pid
    with pytest.raises(SupervisorError, match=r"(?s)dying ended with code 4, 3 times.*no way"):
        supervisor.wait(20)
    assert other_pid is not None
    assert not alive(other_pid)


def test_a_process_that_dies_before_it_was_ready_ends_the_start(lines: Lines) -> None:
    other = child(lines, "other", FOREVER)
    broken = child(
        lines, "broken", "print('bad setting'); raise SystemExit(1)", ready=lambda: False
    )
    with pytest.raises(
        SupervisorError, match=r"(?s)broken ended with code 1 before it was ready.*bad setting"
    ):
        Supervisor([other, broken], lines).start()
    assert other.pid is None


def test_a_failing_step_ends_the_start_and_nothing_after_it_is_started(lines: Lines) -> None:
    step = child(lines, "step", "raise SystemExit(2)", once=True)
    after = child(lines, "after", "print('ran')", after=["step"])
    with pytest.raises(SupervisorError, match="step ended with code 2"):
        Supervisor([step, after], lines).start()
    assert lines.of("after") == []


def test_a_process_that_is_never_ready_ends_the_start(lines: Lines) -> None:
    stuck = child(lines, "stuck", FOREVER, ready=lambda: False, ready_within=0.4)
    with pytest.raises(SupervisorError, match=r"stuck was not ready within 0\.4 s"):
        Supervisor([stuck], lines).start()
    assert stuck.pid is None


def test_a_program_that_cannot_be_executed_is_named(lines: Lines) -> None:
    process = ChildProcess(Program("absent", ["/no/such/program"], {}), lines)
    with pytest.raises(SupervisorError, match="absent could not be started"):
        Supervisor([process], lines).start()


def test_what_ignores_the_polite_signal_is_killed_with_its_whole_group(lines: Lines) -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN)\n"
    code = (
        "import subprocess, sys\n" + stubborn + "child = subprocess.Popen("
        f"[sys.executable, '-c', {stubborn + FOREVER!r}]); print(child.pid)\n" + FOREVER
    )
    process = child(lines, "stubborn", code, stop_within=0.5)
    with Supervisor([process], lines):
        assert until(lambda: bool(lines.of("stubborn")))
        grandchild = int(lines.of("stubborn")[0])
        assert alive(grandchild)
    assert until(lambda: not alive(grandchild))
    assert "did not stop within 0.5 s: killed" in lines.of("stubborn")


def test_a_grandchild_does_not_outlive_its_dead_parent(lines: Lines) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}], stdout=subprocess.DEVNULL)\n"
        "print(child.pid); time.sleep(0.4); sys.exit(1)"
    )
    process = child(lines, "parent", code)
    with Supervisor([process], lines, restart=QUICK):
        assert until(lambda: len(lines.of("parent")) >= 2)
        assert until(lambda: not alive(int(lines.of("parent")[0])))


def test_a_stop_during_the_start_leaves_nothing(lines: Lines) -> None:
    process = child(lines, "slow", FOREVER, ready=lambda: False)
    supervisor = Supervisor([process], lines)
    threading.Timer(0.5, supervisor.request_stop).start()
    supervisor.start()
    assert supervisor.wait(5)
    assert process.pid is None


_SUPERVISED = """
import sys, time
from fleetprompt.runtime.processes import ChildProcess, Program
from fleetprompt.runtime.supervisor import Supervisor
inner = ("import subprocess, sys, time, os;"
         "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
         "print('PIDS', os.getpid(), c.pid, flush=True); time.sleep(600)")
children = [ChildProcess(Program(n, [sys.executable, '-c', inner], {}),
            lambda _n, line: print(line, flush=True)) for n in ('a', 'b')]
supervisor = Supervisor(children, lambda *_: None)
supervisor.start()
time.sleep(600)
"""


def test_no_orphan_is_left_when_the_supervisor_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SUPERVISED], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        found = [supervisor.stdout.readline().split() for _ in range(2)]
        pids = [int(pid) for line in found for pid in line[1:]]
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        supervisor.send_signal(signal.SIGKILL)
        assert until(lambda: not any(alive(pid) for pid in pids))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_taken_port_is_refused_with_its_holder_and_the_setting(taken: int) -> None:
    door = Door("api", "127.0.0.1", taken, "FLEETPROMPT_API_PORT")
    with pytest.raises(PortTakenError) as refused:
        refuse_taken([door])
    message = str(refused.value)
    assert (
        f"port {taken} is taken by {psutil.Process().name()} (process {psutil.Process().pid})"
        in (message)
    )
    assert "set FLEETPROMPT_API_PORT to another port" in message


def test_two_settings_with_one_port_are_refused() -> None:
    port = free_port()
    one, two = (Door(name, "127.0.0.1", port, f"FLEETPROMPT_{name}") for name in ("A", "B"))
    with pytest.raises(PortTakenError, match=f"FLEETPROMPT_A and FLEETPROMPT_B are both {port}"):
        refuse_taken([one, two])


def test_free_ports_pass_even_right_after_a_server_closed(taken: int) -> None:
    assert probes.accepts_connections("127.0.0.1", taken)()
    free = free_port()
    refuse_taken([Door("api", "127.0.0.1", free, "FLEETPROMPT_API_PORT")])
    assert not probes.accepts_connections("127.0.0.1", free)()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedTerminal(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_all_is_stopped_even_if_nobody_reads_the_log_any_more() -> None:
    log = MergedLog(ClosedTerminal(), as_json=False)
    code = "print('x' * 1000, flush=True)\n" * 300 + "import time\nwhile True: time.sleep(60)"
    process = ChildProcess(Program("chatty", [sys.executable, "-c", code], {}), log)
    with Supervisor([process], log):
        assert until(lambda: len(process.last_lines) > 30)
        pid = process.pid
    assert pid is not None
    assert not alive(pid)


def test_text_logs_name_the_process_and_colour_it_on_a_terminal_only() -> None:
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        MergedLog(stream, as_json=False)("api", "hello")
    assert plain.getvalue() == "api          | hello\n"
    assert terminal.getvalue() == "\x1b[36mapi          | \x1b[0mhello\n"


def test_json_lines_pass_through_and_other_lines_are_wrapped() -> None:
    stream = io.StringIO()
    log = MergedLog(stream, as_json=True)
    log("api", '{"level": "info", "message": "hello"}')
    log("daemon", "plain words")
    log("daemon", "{not json")
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first == {"level": "info", "message": "hello", "process": "api"}
    assert (second["process"], second["message"]) == ("daemon", "plain words")
    assert third["message"] == "{not json"


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_masked_and_terminal_control_is_dropped(as_json: bool) -> None:
    stream = io.StringIO()
    log = MergedLog(stream, as_json=as_json)
    log("api", "posting to https://chat.example/hooks/abcdefgh12345678 now")
    log("api", "\x1b]0;owned\x07\x1b[2Jwiped\x1b[31m red\rover")
    written = stream.getvalue()
    assert "abcdefgh12345678" not in written
    assert "\x1b" not in written
    assert "\\u001b" not in written
    assert "owned" not in written
    assert "wiped redover" in written


def test_a_dead_childs_last_lines_are_masked(lines: Lines) -> None:
    broken = child(
        lines, "broken", "print('password=hunter2-canary'); raise SystemExit(1)", once=True
    )
    with pytest.raises(SupervisorError) as failed:
        Supervisor([broken], lines).start()
    assert "hunter2-canary" not in str(failed.value) + str(lines.all)


def test_restarts_pause_longer_each_time_up_to_a_bound() -> None:
    policy = RestartPolicy(attempts=9, first_pause=0.5, longest_pause=30)
    assert [policy.pause(n) for n in (1, 2, 3, 7, 8)] == [0.5, 1, 2, 30, 30]
