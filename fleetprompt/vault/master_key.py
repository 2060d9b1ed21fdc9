"""The master key: 32 bytes that everything secret in the platform hangs on.

It comes from the environment, from a file of its own or from the operating system's keyring. It is
never read from a database and there is no setting that would allow it: whoever copies the database
must not hold the key to what is encrypted in it (research/platform.md, T28). For the same reason a
key file inside a PostgreSQL data folder is refused, because a base backup would carry it along.
"""

import base64
import binascii
import contextlib
import fcntl
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NoReturn, TypeVar

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from fleetprompt.errors import FleetPromptError
from fleetprompt.settings import Settings

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

Answer = TypeVar("Answer")

KEY_BYTES = 32
KEYRING_SERVICE = "fleetprompt"
KEYRING_ENTRY = "master-key"
KEYRING_SECONDS = 5.0

_MAKE_ONE = (
    "Make a key with `openssl rand -base64 32` and keep a copy of it apart from the database's "
    "backups: without it no stored credential can be opened."
)
# 32 random bytes hold about 30 different values; fewer than 8 is a placeholder, not a key.
_LEAST_DIFFERENT_BYTES = 8
_LARGEST_FILE = 4096
_PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,62}")


class MasterKeyError(FleetPromptError):
    """There is no usable master key; the message says what to do and never shows a key.

    Raised when a process starts. The problem type stays ``internal``: nobody outside needs more.
    """

    title = "The master key cannot be used"


class MasterKey:
    """32 bytes that are never used themselves: every use has a subkey of its own.

    Printing shows the key's public id alone; pickling and copying are refused.
    """

    __slots__ = ("_key", "key_id")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise MasterKeyError(f"A master key has {KEY_BYTES} bytes; this one has {len(key)}.")
        self._key = key
        self.key_id: str = self.subkey("key-id")[:8].hex()
        """Public name of this key (16 hexadecimal digits); says which key wrapped a data key."""

    def subkey(self, purpose: str) -> bytes:
        """32 bytes for one purpose (``"data-key-wrap"``), the same for the same key and purpose.

        HKDF-SHA256 (RFC 5869) with the purpose as ``info``: no subkey tells anything about
        another one or about the master key. ``ValueError`` for a purpose that is not lower-case
        words joined by hyphens.
        """
        if not _PURPOSE.fullmatch(purpose):
            raise ValueError(f"a purpose is lower-case words joined by hyphens, not {purpose!r}")
        derive = HKDF(algorithm=SHA256(), length=32, salt=b"fleetprompt/1", info=purpose.encode())
        return derive.derive(self._key)

    def __repr__(self) -> str:
        return f"<MasterKey {self.key_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MasterKey) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a master key is not pickled or copied; load it in each process")


def load_master_key(settings: Settings, *, create: bool = False) -> MasterKey:
    """The master key from where the settings say; ``MasterKeyError`` tells what is wrong.

    ``create`` makes a key where there is none, in the file or the keyring; two processes that
    create at once end with the same key. With the source ``auto`` a key is made for the embedded
    database only: another machine at the same PostgreSQL would otherwise make a second key
    without anybody noticing. An environment variable cannot be made.
    """
    source = settings.master_key_source
    if source == "auto":
        source = "env" if settings.master_key is not None else "file"
        create = create and settings.database_url is None
    if source == "env":
        return _from_environment(settings.master_key)
    if source == "keyring":
        return _from_keyring(settings.state_dir, create=create)
    return _from_file(master_key_path(settings), create=create)


def master_key_path(settings: Settings) -> Path:
    """The file that the key is read from when it comes from a file; need not exist."""
    path = settings.master_key_file or settings.state_dir / "master.key"
    return path.expanduser().absolute()


def _from_environment(value: SecretStr | None) -> MasterKey:
    if value is None:
        raise MasterKeyError(
            "FLEETPROMPT_MASTER_KEY is not set, and FLEETPROMPT_MASTER_KEY_SOURCE is `env`. "
            + _MAKE_ONE
        )
    return _decoded(value, "FLEETPROMPT_MASTER_KEY")


def _from_file(path: Path, *, create: bool) -> MasterKey:
    for folder in path.parents:
        if (folder / "PG_VERSION").is_file():
            raise MasterKeyError(
                f"The master key file {path} lies inside the database's data folder {folder}, "
                "whose backups would carry it. Set FLEETPROMPT_MASTER_KEY_FILE to a place outside."
            )
    found = _read_private_file(path)
    if found is None and create:
        _write_new_file(path)
        found = _read_private_file(path)
    if found is None:
        raise MasterKeyError(
            f"There is no master key: FLEETPROMPT_MASTER_KEY is not set and {path} does not exist. "
            + _MAKE_ONE
        )
    return _decoded(found, str(path))


def _read_private_file(path: Path) -> SecretStr | None:
    """The file's text, or None where there is no file; refused unless it is its owner's alone."""
    try:
        # Not blocking, so that a named pipe is refused below instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MasterKeyError(
            f"The master key file {path} cannot be read: {error.strerror}."
        ) from error
    try:
        # The open file is asked, not its path, so that nothing can be put in between.
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise MasterKeyError(f"The master key file {path} is not a regular file.")
        if state.st_uid != os.geteuid():
            raise MasterKeyError(
                f"The master key file {path} belongs to user id {state.st_uid}, this process runs "
                f"as {os.geteuid()}. Give the file to that user: `chown {os.geteuid()} {path}`."
            )
        if state.st_mode & 0o077:
            raise MasterKeyError(
                f"The master key file {path} is open to others "
                f"(mode {stat.S_IMODE(state.st_mode):04o}). Close it: `chmod 600 {path}`."
            )
        return SecretStr(os.read(descriptor, _LARGEST_FILE).decode("ascii", errors="replace"))
    finally:
        os.close(descriptor)


def _write_new_file(path: Path) -> None:
    """Make the file with a new key, whole or not at all; one that another process made is kept."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_new_key_text().get_secret_value().encode() + b"\n")
                file.flush()
                os.fsync(descriptor)
            # A link appears under its final name with its whole content, and never replaces one.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise MasterKeyError(
            f"The master key file {path} cannot be made: {error.strerror}. "
            "Set FLEETPROMPT_MASTER_KEY_FILE to a place that this process may write to."
        ) from error


def _from_keyring(state_dir: Path, *, create: bool) -> MasterKey:
    place = f"keyring entry {KEYRING_SERVICE}/{KEYRING_ENTRY}"
    found = _read_keyring()
    if found is None and create:
        with _one_at_a_time(state_dir):
            found = _read_keyring()
            if found is None:
                _write_keyring(_new_key_text())
                found = _read_keyring()
        if found is None:
            raise MasterKeyError(f"The {place} was written but cannot be read back.")
    if found is None:
        raise MasterKeyError(
            f"There is no {place}. Put a key there with `keyring set {KEYRING_SERVICE} "
            f"{KEYRING_ENTRY}`. {_MAKE_ONE}"
        )
    return _decoded(found, place)


def _read_keyring() -> SecretStr | None:
    return _ask_keyring(
        lambda backend: _secret_or_none(backend.get_password(KEYRING_SERVICE, KEYRING_ENTRY))
    )


def _write_keyring(key: SecretStr) -> None:
    _ask_keyring(
        lambda backend: backend.set_password(KEYRING_SERVICE, KEYRING_ENTRY, key.get_secret_value())
    )


def _secret_or_none(text: str | None) -> SecretStr | None:
    return None if text is None else SecretStr(text)


def _ask_keyring(question: Callable[["KeyringBackend"], Answer]) -> Answer:
    """Put a question to this machine's keyring, if it is one that keeps secrets.

    In a thread of its own: a locked secret service may wait for ever for somebody to type a
    password (research/edge.md §5), and a service must not.
    """
    # Imported here: looking for a backend takes long, and few installations use one.
    import keyring
    from keyring.errors import KeyringError

    backend = keyring.get_keyring()
    # Below 1 are keyring's own "none found", "do nothing" and the files in plain text.
    if backend.priority < 1:
        raise MasterKeyError(
            "This machine offers no keyring that keeps a secret "
            f"({type(backend).__module__}.{type(backend).__qualname__}). "
            "Set FLEETPROMPT_MASTER_KEY_SOURCE to `file` or `env`."
        )
    answers: SimpleQueue[Answer | KeyringError] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(question(backend))
        except KeyringError as error:
            answers.put(error)

    Thread(target=ask, name="keyring", daemon=True).start()
    try:
        answer = answers.get(timeout=KEYRING_SECONDS)
    except Empty:
        raise MasterKeyError(
            f"The keyring did not answer within {KEYRING_SECONDS:g} s. Unlock it and start again."
        ) from None
    if isinstance(answer, KeyringError):
        # A backend's own words may hold what it was given, so only the kind of error is told.
        raise MasterKeyError(
            f"The keyring refused ({type(answer).__name__}). Unlock it and start again."
        )
    return answer


@contextlib.contextmanager
def _one_at_a_time(state_dir: Path) -> Iterator[None]:
    """Hold a lock on the state folder: a keyring has no way to add an entry only if it is new."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _new_key_text() -> SecretStr:
    return SecretStr(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())


def _decoded(text: SecretStr, place: str) -> MasterKey:
    """The key in ``text``; no frame of the error that may be raised here holds it in clear."""
    key = _base64_bytes(text)
    if key is None or len(key) != KEY_BYTES:
        what = "is empty" if not text.get_secret_value().strip() else "is not 32 bytes in base64"
    elif len(set(key)) < _LEAST_DIFFERENT_BYTES:
        what = "is a placeholder, not a random key"
    else:
        return MasterKey(key)
    del key
    raise MasterKeyError(f"The master key in {place} {what}. {_MAKE_ONE}")


def _base64_bytes(text: SecretStr) -> bytes | None:
    """Standard and URL-safe base64, blanks around it ignored; None if it is neither."""
    compact = text.get_secret_value().strip().replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        return None
