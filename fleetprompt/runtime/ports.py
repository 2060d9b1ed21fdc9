"""Whether the ports that the platform needs are free, and who has them if not."""

import contextlib
import importlib
import socket
from dataclasses import dataclass

from fleetprompt.settings import Settings


@dataclass(frozen=True)
class Door:
    """An address that one of the processes will listen on, and the setting that moves it."""

    process: str
    host: str
    port: int
    setting: str


class PortTakenError(RuntimeError):
    """Something else listens where a process of ours should."""


def doors(settings: Settings) -> list[Door]:
    """All addresses of the platform; Dagster's are on loopback always (research/dagster.md, 25)."""
    return [
        Door("api", settings.api_host, settings.api_port, "FLEETPROMPT_API_PORT"),
        Door("webserver", "127.0.0.1", settings.dagster_port, "FLEETPROMPT_DAGSTER_PORT"),
        Door("code-server", "127.0.0.1", settings.code_server_port, "FLEETPROMPT_CODE_SERVER_PORT"),
    ]


def refuse_taken(needed: list[Door]) -> None:
    """PortTakenError naming every port that cannot be had, its holder and the setting to change."""
    problems = []
    by_port: dict[int, Door] = {}
    for door in needed:
        twin = by_port.setdefault(door.port, door)
        if twin is not door:
            problems.append(f"{twin.setting} and {door.setting} are both {door.port}")
        elif reason := why_taken(door):
            problems.append(f"{reason}: free it, or set {door.setting} to another port")
    if problems:
        raise PortTakenError("; ".join(problems))


def why_taken(door: Door) -> str | None:
    """Why the port cannot be had, in words; None if it is free."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            door.host, door.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections that are just closing are not in the way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except PermissionError:
        return f"port {door.port} needs more rights than this user has"
    except OSError as error:
        if holder := holder_of(door.port):
            name, pid = holder
            return f"port {door.port} is taken by {name} (process {pid})"
        return f"{door.host}:{door.port} cannot be listened on ({error.strerror})"
    return None


def holder_of(port: int) -> tuple[str, int] | None:
    """Name and id of the process that listens on ``port``, as far as this user may see."""
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        return None
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return psutil.Process(connection.pid).name(), connection.pid
    return None
