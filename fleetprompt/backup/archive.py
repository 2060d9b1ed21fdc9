"""The backup's file: a compressed tar whose first member, ``manifest.json``, describes the others.

Each member is held against the manifest's SHA-256 when it is read, so that a damaged copy is refused
before anything is restored.
"""

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from fleetprompt.errors import InvalidError
from fleetprompt.ids import new_id

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one table in PostgreSQL's text form of COPY; ``columns`` in their order."""

    name: str
    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in the file and what it came from."""

    slug: str
    name: str
    tenant_id: str
    revision: str
    made_at: str
    master_key_id: str
    tables: tuple[Table, ...]
    platform_tables: tuple[Table, ...]
    lake_files: int
    hashes: dict[str, str]
    format: int = FORMAT

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """From JSON; InvalidError for what this version does not know."""
        try:
            found: dict[str, Any] = json.loads(content)
            if found["format"] != FORMAT:
                raise InvalidError(
                    f"This backup has format {found['format']}; this version reads format {FORMAT}."
                )
            for kind in ("tables", "platform_tables"):
                found[kind] = tuple(
                    Table(one["name"], tuple(one["columns"]), one["rows"]) for one in found[kind]
                )
            datetime.fromisoformat(found["made_at"])
            return cls(**found)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError("This is no backup of a tenant: its manifest is broken.") from error


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def members_of(folder: Path) -> list[str]:
    """Names of all files below the folder, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def pack(folder: Path, manifest: Manifest, target: Path) -> None:
    """Write everything below ``folder`` into ``target``, readable by its owner alone.

    ``target`` appears when it is whole and on disk; what stood there before is replaced.
    """
    unfinished = target.with_name(f".{target.name}.{new_id().hex}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
                content = json.dumps(asdict(manifest), indent=1).encode()
                head = tarfile.TarInfo(_MANIFEST)
                head.size = len(content)
                tar.addfile(head, io.BytesIO(content))
                for name in members_of(folder):
                    tar.add(folder / name, arcname=name, recursive=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def read_manifest(source: Path) -> Manifest:
    """The manifest alone; InvalidError if this is no backup."""
    with _told(), tarfile.open(source, mode="r:gz") as tar:
        return _manifest(tar)


def unpack(source: Path, folder: Path) -> Manifest:
    """Everything into an empty folder, each member held against its hash; InvalidError otherwise."""
    with _told(), tarfile.open(source, mode="r:gz") as tar:
        manifest = _manifest(tar)
        for member in _members(tar):
            if member.name not in manifest.hashes or not member.isfile():
                raise InvalidError(f"The backup is damaged: {member.name!r} does not belong there.")
            tar.extract(member, folder, filter="data")
    present = members_of(folder)
    if present != sorted(manifest.hashes):
        raise InvalidError("The backup is damaged: parts of it are missing.")
    for name in present:
        if hash_of(folder / name) != manifest.hashes[name]:
            raise InvalidError(f"The backup is damaged: {name} is not what was written.")
    return manifest


@contextmanager
def _told() -> Iterator[None]:
    """Whatever reading a damaged archive raises, as one kind."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InvalidError("The file cannot be read as a backup, or is damaged.") from error


def _manifest(tar: tarfile.TarFile) -> Manifest:
    first = next(_members(tar), None)
    content = tar.extractfile(first) if first is not None and first.name == _MANIFEST else None
    if content is None:
        raise InvalidError("This is no backup of a tenant: it has no manifest.")
    return Manifest.parse(content.read())


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        yield member
