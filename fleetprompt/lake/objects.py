"""Object storage as far as the lake needs it: addresses that behave like paths, and files to read.

An object is replaced whole by being put; readers see the old one or the new one. Credentials, endpoint
and region are taken from the environment alone, such as ``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL``.
"""

import errno
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fleetprompt.errors import InvalidError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

PROTOCOLS = ("s3", "gs", "abfs")
# Bytes that are asked for at least: a file's end, where its columns are told, comes in one request.
_READ_BYTES = 256 * 1024
# A store that does not answer is told within seconds, not minutes.
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a store says of an object: bytes, when it was put, and the mark of this content."""

    st_size: int
    modified: datetime
    mark: str | None


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """An object's or folder's address, with those of pathlib's methods that the lake uses.

    ``bucket`` is ``<protocol>://<name>``, ``key`` has no slash at either end. Methods raise
    FileNotFoundError for what is not there, and OSError for what the store refuses: never with the
    store's own text, which may hold parts of credentials.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, address: str) -> "ObjectPath":
        """Of ``s3://bucket/folder``; InvalidError for another protocol or what an address may not hold."""
        protocol, _, rest = address.partition("://")
        if protocol not in PROTOCOLS:
            raise InvalidError(f"A lake is a folder or at one of: {', '.join(PROTOCOLS)}://…")
        name, _, key = rest.strip("/").partition("/")
        if (
            not name
            or any(sign in rest for sign in "@?#*")
            or (key and {"", ".", ".."} & set(key.split("/")))
        ):
            raise InvalidError(
                "A lake's address is <protocol>://<bucket>/<folder>; credentials are in the environment."
            )
        return cls(f"{protocol}://{name}", key)

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self.bucket, f"{self.key}/{name}".strip("/"))

    def __lt__(self, other: "ObjectPath") -> bool:
        return str(self) < str(other)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectPath":
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def relative_to(self, folder: "ObjectPath") -> Path:
        """The rest of the address as a path."""
        if self.bucket != folder.bucket:
            raise ValueError(f"{self} is not in {folder}")
        return Path(self.key).relative_to(folder.key)

    def stat(self) -> ObjectStat:
        import obstore

        with _telling(self):
            found = obstore.head(_store(self.bucket), self.key)
        return ObjectStat(found["size"], found["last_modified"], found["e_tag"])

    def exists(self) -> bool:
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects below that match; each part of the pattern stands for one part of a name."""
        import obstore

        first, _, rest = pattern.partition("/")
        if first == "*" and rest:
            with _telling(self):
                found = obstore.list_with_delimiter(_store(self.bucket), self.key)
            for folder in found["common_prefixes"]:
                yield from ObjectPath(self.bucket, folder).glob(rest)
            return
        parts = pattern.split("/")
        fixed = next((n for n, part in enumerate(parts) if "*" in part), len(parts) - 1)
        folder = "/".join([self.key, *parts[:fixed]]).strip("/")
        with _telling(self):
            for page in obstore.list(_store(self.bucket), folder, chunk_size=1_000):
                for one in page:
                    path = ObjectPath(self.bucket, one["path"])
                    names = path.relative_to(self).parts
                    if len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
                        yield path

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """To read one content: OSError if it is replaced while it is read."""
        return io.BufferedReader(RangeReader(ObjectContent(self)), _READ_BYTES)

    def put(self, file: Path) -> None:
        """Put the file's content in the place of what is there, whole."""
        import obstore

        with _telling(self):
            obstore.put(_store(self.bucket), self.key, file)

    def unlink(self) -> None:
        import obstore

        with _telling(self):
            obstore.delete(_store(self.bucket), self.key)

    def rmdir(self) -> None:
        """Nothing: folders are there as long as objects are in them."""


class Content(Protocol):
    """What a file or object held when it was opened: its size in bytes, and when it was written."""

    size: int
    modified: datetime

    def bytes(self, start: int, end: int) -> bytes:
        """Those from ``start`` up to ``end``, which is in it."""


class ObjectContent:
    """One content of an object: OSError if it is replaced meanwhile."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        found = path.stat()
        self.size = found.st_size
        self.modified = found.modified
        self._mark = found.mark

    def bytes(self, start: int, end: int) -> bytes:
        import obstore

        options: GetOptions = {"range": (start, end)}
        if self._mark:
            options["if_match"] = self._mark
        with _telling(self._path):
            found = obstore.get(_store(self._path.bucket), self._path.key, options=options)
            return bytes(found.bytes())


class RangeReader(io.RawIOBase):
    """A content that is read by ranges. Each thread has a place of its own in it.

    DuckDB moves and reads in two calls, and with one file in several threads at once.
    """

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content
        self._place = threading.local()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(getattr(self._place, "at", 0))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._content.size}[whence]
        self._place.at = max(0, base + offset)
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        # Not by readinto, which copies what was read twice.
        start = self.tell()
        end = self._content.size if size < 0 else min(start + size, self._content.size)
        if end <= start:
            return b""
        found = self._content.bytes(start, end)
        self._place.at = start + len(found)
        return found

    def readinto(self, into: Any) -> int:
        found = self.read(len(into))
        into[: len(found)] = found
        return len(found)


@cache
def _store(bucket: str) -> "ObjectStore":
    from obstore.store import from_url

    return from_url(bucket, retry_config=_RETRIES)


@contextmanager
def _telling(path: ObjectPath) -> Iterator[None]:
    """Errors of the store as those of a file system, without its text."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "No such object", str(path)) from None
    except exceptions.PreconditionError:
        raise OSError(errno.ESTALE, "Replaced while it was read; ask again", str(path)) from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
        raise PermissionError(
            errno.EACCES, "The store refuses these credentials", str(path)
        ) from None
    except exceptions.BaseError as error:
        told = f"The store does not serve it ({type(error).__name__})"
        raise OSError(errno.EIO, told, str(path)) from None
