"""One run of the platform over two Celery workers and a Redis of Debian's, apart in the network when root."""

import contextlib
import ipaddress
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.runtime.environment import (
    ensure_dagster_database,
    environment,
    prepare_dagster_home,
)
from fleetprompt.settings import Settings
from tests.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("redis-server") is None, reason="needs redis-server (Debian: apt-get install)"
    ),
]
_OPS = 5
_PATIENCE = 240.0


@dataclass(frozen=True)
class Place:
    """Where a worker runs: words before its command, and Redis as it sees it."""

    prefix: tuple[str, ...]
    redis: str


@contextlib.contextmanager
def namespaces() -> Iterator[list[Place] | None]:
    """Two network namespaces of their own, each with a wire to this one; None where that is not allowed."""
    remove_left_behind()
    made: list[str] = []
    places = []
    try:
        for number, wire_net in enumerate(free_networks(2), start=1):
            name, wire = f"fp{os.getpid()}n{number}", f"fp{os.getpid()}w{number}"
            here, there = list(wire_net.hosts())
            subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
            made.append(name)
            for command in (
                f"ip link add {wire} type veth peer name eth0 netns {name}",
                f"ip addr add {here}/{wire_net.prefixlen} dev {wire}",
                f"ip link set {wire} up",
                f"ip -n {name} addr add {there}/{wire_net.prefixlen} dev eth0",
                f"ip -n {name} link set eth0 up",
                f"ip -n {name} link set lo up",
            ):
                subprocess.run(command.split(), check=True, capture_output=True)
            places.append(Place(("ip", "netns", "exec", name), str(here)))
        yield places
    except (subprocess.CalledProcessError, FileNotFoundError):
        yield None
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def remove_left_behind() -> None:
    """A test that was killed leaves its namespaces; their names hold its process, which is gone."""
    for name in Path("/run/netns").glob("fp*n[12]"):
        owner = re.fullmatch(r"fp(\d+)n[12]", name.name)
        if owner and not Path("/proc", owner[1]).exists():
            subprocess.run(["ip", "netns", "delete", name.name], check=False, capture_output=True)


def free_networks(count: int) -> list[ipaddress.IPv4Network]:
    """Networks of two addresses each that no interface of this machine is in."""
    told = subprocess.run(["ip", "-j", "-4", "addr"], check=True, capture_output=True).stdout
    taken = [
        ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network
        for interface in json.loads(told)
        for address in interface["addr_info"]
    ]
    candidates = ipaddress.ip_network("10.213.0.0/16").subnets(new_prefix=30)
    free = (one for one in candidates if not any(one.overlaps(other) for other in taken))
    return [ipaddress.IPv4Network(one) for one in itertools.islice(free, count)]


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict[str, str]) -> Iterator[None]:
    """A process group of its own, ended with the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, stdout=output, stderr=output, env=env, start_new_session=True
        )
        try:
            yield
        finally:
            for kind in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, kind)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(20)
                    break


def wait_for(log: Path, pattern: str) -> None:
    """Until the log holds the pattern."""
    ends = time.monotonic() + _PATIENCE
    while not re.search(pattern, log.read_text(errors="replace")):
        assert time.monotonic() < ends, (
            f"{log.name} never said {pattern}: {log.read_text()[-2000:]}"
        )
        time.sleep(0.1)


def test_the_steps_of_a_run_are_spread_over_two_workers(
    settings: Settings, postgres: EmbeddedPostgres, tmp_path: Path, repository: Path
) -> None:
    """With the settings and the command that deploy/ ships."""
    port = free_port()
    with namespaces() as apart, contextlib.ExitStack() as running:
        places = apart or [Place((), "127.0.0.1")] * 2
        if apart is None:
            print("network namespaces are not allowed here: both workers share this one")
        given = settings.model_copy(
            update={
                "state_dir": tmp_path / "state",
                "celery_broker": SecretStr(f"redis://127.0.0.1:{port}/0"),
            }
        )
        given = Settings.model_validate(given.model_dump(exclude_unset=False))
        ensure_dagster_database(postgres.owner_url, given)
        prepare_dagster_home(given)
        env = environment(given, postgres.owner_url)
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        binds = sorted({"127.0.0.1", *(place.redis for place in places)})
        running.enter_context(
            process(
                [
                    *("redis-server", "--port", str(port), "--bind", *binds),
                    *("--protected-mode", "no", "--save", "", "--dir", str(tmp_path)),
                ],
                tmp_path / "redis.log",
                env,
            )
        )
        wait_for(tmp_path / "redis.log", "Ready to accept connections")
        logs = []
        for number, place in enumerate(places):
            logs.append(tmp_path / f"worker{number}.log")
            seen = {
                "FLEETPROMPT_CELERY_BROKER": f"redis://{place.redis}:{port}/0",
                "PYTHONPATH": str(repository / "deploy/celery"),
            }
            command = ["celery", "-A", "dagster_celery.app", "worker", "--loglevel", "info"]
            command += ["-n", f"worker{number}@%h", "--pool", "solo"]
            running.enter_context(process([*place.prefix, *command], logs[-1], env | seen))
        for log in logs:
            wait_for(log, r"ready\.")
        # Which worker takes a step is Redis's choice; one that has had none gets its turn in another run.
        for runs in range(1, 5):
            execute("keep_house", env)
            shares = [log.read_text().count("succeeded in") for log in logs]
            assert sum(shares) == runs * _OPS, shares
            if all(shares):
                break
        assert all(shares), shares
        # A drain works in a thread beside its step and tells the grid itself: in a worker as well.
        config = tmp_path / "drain.yaml"
        config.write_text("ops: {drain: {config: {linger_seconds: 0}}}")
        execute("drain_directives", env, "-c", str(config))
        assert sum(log.read_text().count("succeeded in") for log in logs) == sum(shares) + 1


def execute(job: str, env: dict[str, str], *options: str) -> None:
    """Run the job from here, its steps at the workers; nothing that is told holds the broker's address."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dagster", "job", "execute"),
            *("-m", "fleetprompt_dagster.definitions", "-j", job, *options),
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "RUN_SUCCESS" in done.stderr
    assert urlsplit(env["FLEETPROMPT_CELERY_BROKER"]).netloc not in done.stderr
