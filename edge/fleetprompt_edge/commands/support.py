"""``support-bundle``."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from fleetprompt_edge.commands.shared import OK, answering, profile_of
from fleetprompt_edge.errors import EdgeError
from fleetprompt_edge.support.bundle import bundle as packed
from fleetprompt_edge.telling import tell


@answering
def bundle(asked: argparse.Namespace) -> int:
    """Write the bundle to a new file; nothing is sent anywhere."""
    profile, folder = profile_of(asked)
    name = f"fleetprompt-edge-support-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"
    path = Path(asked.output).expanduser() if asked.output else Path.cwd() / name
    content = packed(profile, folder)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise EdgeError(
            f"{path} cannot be written: {error.strerror}.", remedy="Name another: --output PATH."
        ) from error
    words = f"Wrote {path} ({len(content) / 1000:.0f} kB). Nothing was sent; read it before you send it."
    tell(asked, {"ok": True, "path": str(path), "bytes": len(content)}, words)
    return OK
