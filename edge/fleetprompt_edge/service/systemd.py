"""Handing a unit to systemd, and asking how it is."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleetprompt_edge.errors import EdgeError
from fleetprompt_edge.service.unit import Unit

DEFAULT_NAME = "fleetprompt-edge"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}")
_SECONDS = 90


class ServiceError(EdgeError):
    """The service cannot be installed, removed or asked."""

    kind, code = "validation", "service"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The system's service manager, or with ``user`` the one of the user's own session."""

    user: bool

    def path(self, name: str) -> Path:
        """Where the unit file of a service belongs."""
        if not _NAME.fullmatch(name):
            raise ServiceError(
                "A service's name has letters, digits, dots, dashes and underscores."
            )
        if self.user:
            base = os.environ.get("XDG_CONFIG_HOME")
            folder = (Path(base) if base else Path.home() / ".config") / "systemd" / "user"
        else:
            folder = Path("/etc/systemd/system")
        return folder / f"{name}.service"

    def install(self, name: str, unit: Unit) -> Path:
        """Write the unit, start it, and start it with the machine from now on."""
        self._must_run()
        path = self.path(name)
        self._must_be_ours(path, unit)
        try:
            if not unit.state.exists():
                unit.state.mkdir(mode=0o700, parents=True)
                if unit.run_as is not None:
                    shutil.chown(unit.state, unit.run_as)
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_text(unit.text(), encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise ServiceError(
                f"{error.filename} cannot be written: {error.strerror}.",
                remedy="Run it as root, or with --user.",
            ) from error
        self._ask("daemon-reload")
        self._ask("enable", path.name)
        self._ask("restart", path.name)
        return path

    def uninstall(self, name: str) -> bool:
        """Stop the service and remove its unit; whether there was one. Profile and state stay."""
        path = self.path(name)
        if not path.exists():
            return False
        self._must_run()
        self._ask("disable", "--now", path.name)
        try:
            path.unlink()
        except OSError as error:
            raise ServiceError(f"{path} cannot be removed: {error.strerror}.") from error
        self._ask("daemon-reload")
        return True

    def state(self, name: str) -> dict[str, str]:
        """``ActiveState``, ``SubState``, ``StatusText``, ``MainPID``, ``NRestarts``, ``Result``."""
        self._must_run()
        wanted = "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,UnitFileState"
        told = self._ask("show", self.path(name).name, f"--property={wanted}")
        pairs = (line.partition("=") for line in told.splitlines() if "=" in line)
        return {key: value for key, _, value in pairs}

    def _must_be_ours(self, path: Path, unit: Unit) -> None:
        if path.exists() and f"--profile {unit.profile}" not in path.read_text(encoding="utf-8"):
            raise ServiceError(
                f"{path} is the service of another profile.",
                remedy="Give this one a name of its own: --name NAME.",
            )

    def _must_run(self) -> None:
        """sd_booted(3): the folder is there while systemd runs."""
        runtime = os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")
        mark = Path(runtime) / "systemd" if self.user else Path("/run/systemd/system")
        if shutil.which("systemctl") and mark.is_dir():
            return
        whose = "of this user" if self.user else "on this machine"
        raise ServiceError(
            f"There is no running systemd {whose}; nothing was changed.",
            remedy="Let what starts programs here run `fleetprompt-edge run`; `service install --print` "
            "shows the unit that systemd would get.",
        )

    def _ask(self, *arguments: str) -> str:
        command = ["systemctl", *(["--user"] if self.user else []), "--no-pager", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"systemctl {arguments[0]} did not answer.") from error
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise ServiceError(
                f"systemctl {arguments[0]} failed: {said[-1] if said else done.returncode}",
                remedy="Run it as root, or with --user." if not self.user else "",
            )
        return done.stdout
