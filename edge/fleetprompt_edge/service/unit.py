"""The unit file. What a service may do is little, so that what breaks into it can do little."""

import sys
from dataclasses import dataclass
from pathlib import Path

from fleetprompt_edge import __version__

# Those that need no rights of the service manager, so that they hold for a user's own services too.
_FOR_ALL = """\
NoNewPrivileges=yes
UMask=0077
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""
_FOR_THE_SYSTEM = """\
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateTmp=yes
PrivateDevices=yes
RemoveIPC=yes
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A service for one profile. ``run_as``: the user of a system service; None: a user's own service."""

    profile: Path
    state: Path
    key_file: Path | None
    run_as: str | None

    def text(self) -> str:
        """The unit file."""
        program = " ".join(_argument(one) for one in program_line())
        profile = _argument(str(self.profile))
        system = self.run_as is not None
        lines = [
            f"# Written by `fleetprompt-edge service install`, version {__version__}.",
            "[Unit]",
            "Description=FleetPrompt connector for Proton Mail Bridge",
            *(["Wants=network-online.target", "After=network-online.target"] if system else []),
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=notify",
            # Of the standalone program the child speaks, not the process that systemd started.
            "NotifyAccess=all",
            f"ExecStartPre={program} config check --profile {profile}",
            f"ExecStart={program} run --profile {profile}",
            *([f"User={self.run_as}"] if system else []),
            # The folder that pairing used, whatever this manager's own would be.
            f"Environment={_word(f'STATE_DIRECTORY={self.state}')}",
            *self._key(system=system),
            "Restart=on-failure",
            # What a person has to mend is tried again until it is mended; 4: another one runs already.
            "RestartSec=30",
            "RestartPreventExitStatus=4",
            "WatchdogSec=180",
            "TimeoutStartSec=120",
            "TimeoutStopSec=30",
            "",
            _FOR_ALL.rstrip(),
            *(
                [_FOR_THE_SYSTEM.rstrip(), f"ReadWritePaths={_word(str(self.state))}"]
                if system
                else []
            ),
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if system else 'default.target'}",
            "",
        ]
        return "\n".join(lines)

    def _key(self, *, system: bool) -> list[str]:
        if self.key_file is None:
            return []
        if system:
            # Read by systemd as root: the file itself may be root's alone.
            return ["LoadCredential=secrets-key:" + str(self.key_file).replace("%", "%%")]
        return [f"Environment={_word(f'FLEETPROMPT_EDGE_KEY_FILE={self.key_file}')}"]


def program_line() -> list[str]:
    """How this program is started: the standalone binary, the installed command, or the module."""
    if getattr(sys, "frozen", False):
        return [str(Path(sys.executable).resolve())]
    beside = Path(sys.executable).with_name("fleetprompt-edge")
    if beside.exists():
        return [str(beside)]
    return [sys.executable, "-m", "fleetprompt_edge"]


def _word(text: str) -> str:
    """One word of a unit file: specifiers doubled, quoted where need be (systemd.syntax(7))."""
    text = text.replace("%", "%%")
    if not any(one in text for one in " \t\"'\\;"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _argument(text: str) -> str:
    """One word of a command line, where a dollar begins a variable."""
    return _word(text.replace("$", "$$"))
