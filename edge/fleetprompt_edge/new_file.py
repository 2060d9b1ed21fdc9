"""Making a file that only its owner can read, whole or not at all."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a new file with mode 0600, on disk when this returns; ``FileExistsError`` if it is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
