"""Where the lake is: a folder of this machine, or object storage through fsspec and obstore."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetprompt.errors import InvalidError

# Stores that obstore reaches, and fsspec's own memory for trying things out.
PROTOCOLS = ("s3", "gs", "abfs", "memory")


@dataclass(frozen=True, slots=True)
class Place:
    """The lake's root as DuckDB reads it, and fsspec's file system that serves it unless it is local."""

    root: str
    filesystem: Any = None

    def exists(self, pattern: str) -> bool:
        """Whether any file matches."""
        if self.filesystem is not None:
            return bool(self.filesystem.glob(pattern))
        relative = pattern.removeprefix(f"{self.root}/")
        return next(Path(self.root).glob(relative), None) is not None


def place_of(lake: Path | str) -> Place:
    """A folder, or ``<protocol>://…``; InvalidError for a protocol that is not known."""
    protocol, separator, _ = str(lake).partition("://")
    if not separator:
        return Place(str(Path(lake).absolute()))
    if protocol not in PROTOCOLS:
        raise InvalidError(f"A lake is a folder or at one of: {', '.join(PROTOCOLS)}://…")
    return Place(str(lake).rstrip("/"), _filesystem(protocol))


def _filesystem(protocol: str) -> Any:
    import fsspec  # type: ignore[import-untyped]

    if protocol == "memory":
        return fsspec.filesystem("memory")
    from obstore.fsspec import FsspecStore

    return FsspecStore(protocol)  # type: ignore[call-overload]
