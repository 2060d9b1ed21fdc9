"""The lake as DuckDB reads it where it may read nothing else, and in object storage.

DuckDB allows folders for reading and writing alike, and takes links for what they lead to. Here it is
given files of the lake alone, to read alone, so that its own file system can be closed.
"""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

from fleetprompt.lake.objects import ObjectPath, ObjectReader, RangeReader
from fleetprompt.lake.places import LakePath

_LOCAL = "lake"
_KNOWN_SECONDS = 1.0


def address_of(path: LakePath) -> str:
    """The address under which a file or folder is served."""
    return f"{_LOCAL}://{path}" if isinstance(path, Path) else str(path)


class ServedLake(AbstractFileSystem):  # type: ignore[misc]
    """A file system for reading what is below ``folders`` of the lake; all else is not there.

    DuckDB asks for whole addresses. Names and wildcards are matched part by part and links are not
    followed, so that none leads out.
    """

    cachable = False

    def __init__(self, *folders: LakePath) -> None:
        super().__init__()
        self.protocol = address_of(folders[0]).partition("://")[0]
        self._folders = {f"{address_of(folder)}/": folder for folder in folders}
        self._known: dict[str, tuple[float, LakePath]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def unstrip_protocol(self, name: str) -> str:
        return name

    def glob(self, path: str, **_: Any) -> list[str]:
        if "*" not in path:
            return [path] if self._file(path).exists() else []
        folder, pattern = self._folder_of(path)
        return sorted(map(address_of, folder.glob(pattern)))

    def exists(self, path: str, **_: Any) -> bool:
        try:
            return self._file(path).exists()
        except OSError:
            return False

    isfile = exists

    def isdir(self, path: str) -> bool:
        return False

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": self._file(path).stat().st_size}

    def modified(self, path: str) -> datetime:
        file = self._file(path)
        if isinstance(file, ObjectPath):
            return file.stat().modified
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)

    def open(self, path: str, mode: str = "rb", **_: Any) -> RangeReader:
        if mode != "rb":
            raise PermissionError(f"{path}: the lake is only read")
        file = self._file(path)
        return ObjectReader(file) if isinstance(file, ObjectPath) else _FileReader(file)

    def _file(self, path: str) -> LakePath:
        """The file at this address, judged once for the several looks that a question takes at it."""
        until, file = self._known.get(path, (0.0, None))
        if file is None or until < time.monotonic():
            file = self._judged(path)
            self._known[path] = time.monotonic() + _KNOWN_SECONDS, file
        return file

    def _judged(self, path: str) -> LakePath:
        folder, rest = self._folder_of(path)
        if isinstance(folder, ObjectPath):
            return folder / rest
        # The lake and its tables may be links to where there is room; what is in them may not.
        place = str(folder)
        for name in ("", *rest.split("/")):
            place = f"{place}/{name}".rstrip("/")
            if os.path.islink(place):  # noqa: PTH114 - asked often, and paths are slow to make
                raise PermissionError(f"{path}: a link")
        return Path(place)

    def _folder_of(self, path: str) -> tuple[LakePath, str]:
        for prefix, folder in self._folders.items():
            rest = path.removeprefix(prefix)
            if rest != path and not {"", ".", ".."} & set(rest.split("/")):
                return folder, rest
        raise FileNotFoundError(path)


class _FileReader(RangeReader):
    """A file, as it was when it was opened."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        super().__init__(os.fstat(self._descriptor).st_size)

    def read_range(self, start: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - start, start)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
