"""The lake as DuckDB reads it where it may read nothing else, and in object storage.

DuckDB allows folders for reading and writing alike, and takes links for what they lead to. Here it is
given files of the lake alone, to read alone, so that its own file system can be closed.
"""

import os
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

from fleetprompt.lake.objects import Content, ObjectContent, ObjectPath, RangeReader
from fleetprompt.lake.places import LakePath

_LOCAL = "lake"
# Files that stay open between questions: descriptors.
_KEPT = 128


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
        self._contents: WeakValueDictionary[str, Content] = WeakValueDictionary()
        # Opening a file, each part of its name judged, takes longer than reading what is asked of it.
        self._kept: deque[Content] = deque(maxlen=_KEPT)

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
        return {"name": path, "type": "file", "size": self._content(path).size}

    def modified(self, path: str) -> datetime:
        return self._content(path).modified

    def open(self, path: str, mode: str = "rb", **_: Any) -> RangeReader:
        if mode != "rb":
            raise PermissionError(f"{path}: the lake is only read")
        content = self._contents.get(path)
        if not isinstance(content, _FileContent) or not content.is_current():
            content = self._opened(path)
        return RangeReader(content)

    def _content(self, path: str) -> Content:
        """What was opened last, so that the size and time told are of what is read."""
        return self._contents.get(path) or self._opened(path)

    def _opened(self, path: str) -> Content:
        file = self._file(path)
        if isinstance(file, ObjectPath):
            content: Content = ObjectContent(file)
        else:
            content = _FileContent(file)
            self._kept.append(content)
        self._contents[path] = content
        return content

    def _file(self, path: str) -> LakePath:
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


class _FileContent:
    """A file, as it was when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        found = os.fstat(self._descriptor)
        self._mark = _mark_of(found)
        self.size = found.st_size
        self.modified = datetime.fromtimestamp(found.st_mtime, UTC)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def is_current(self) -> bool:
        """Whether its name still leads to this content."""
        try:
            return _mark_of(os.stat(self._path)) == self._mark  # noqa: PTH116 - asked often
        except OSError:
            return False

    def bytes(self, start: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - start, start)


def _mark_of(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
