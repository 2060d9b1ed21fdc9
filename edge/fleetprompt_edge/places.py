"""Where on this machine a connector keeps what it remembers."""

import os
from pathlib import Path

from fleetprompt_edge.profile import Profile

_BELOW_HOME = Path(".local") / "state" / "fleetprompt-edge"


def state_folder(profile: Profile, home: Path | None = None) -> Path:
    """``state_dir``, else ``$STATE_DIRECTORY`` (systemd), else below the user's state folder.

    ``home``: of another user, whose environment is not this one.
    """
    if profile.state_dir:
        return Path(profile.state_dir).expanduser()
    if home is not None:
        return home / _BELOW_HOME / profile.connector_id
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.partition(":")[0])
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME")
    if base:
        return Path(base) / "fleetprompt-edge" / profile.connector_id
    return Path.home() / _BELOW_HOME / profile.connector_id
