"""Where on this machine a connector keeps what it remembers."""

import os
from pathlib import Path

from fleetprompt_edge.profile import Profile


def state_folder(profile: Profile) -> Path:
    """``state_dir``, else ``$STATE_DIRECTORY`` (systemd), else below the user's state folder."""
    if profile.state_dir:
        return Path(profile.state_dir).expanduser()
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.partition(":")[0])
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME")
    root = Path(base) if base else Path.home() / ".local" / "state"
    return root / "fleetprompt-edge" / profile.connector_id
