"""Secrets in a file, each encrypted by AES-256-GCM under a key that is kept elsewhere.

A key on the same disk protects against backups and copies of the state folder, not against somebody
who may read that disk; better is a key that systemd hands over (``secrets-key``).
"""

import base64
import binascii
import json
import os
from pathlib import Path

from fleetprompt_edge.errors import SecretError
from fleetprompt_edge.new_file import write_private
from fleetprompt_edge.profile import Profile

_FILE = "secrets.enc"
_CREDENTIAL = "secrets-key"
_KEY_BYTES = 32
_NONCE_BYTES = 12


def new_key(path: Path) -> None:
    """Write a new random key to a file that only its owner can read; never over an existing one."""
    try:
        write_private(path, base64.b64encode(os.urandom(_KEY_BYTES)).decode() + "\n")
    except OSError as error:
        raise SecretError(f"{path} cannot be written: {error.strerror}.") from error


def key_file_of(profile: Profile) -> Path | None:
    """The file with the key, as the profile or the environment names it."""
    named = profile.secrets.key_file or os.environ.get("FLEETPROMPT_EDGE_KEY_FILE")
    return Path(named).expanduser() if named else None


def _handed_over() -> Path | None:
    """The key as systemd hands it over, if it does."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / _CREDENTIAL if folder else None
    return path if path is not None and path.exists() else None


class FileVault:
    """``secrets.enc`` in the state folder."""

    label = "encrypted file"

    def __init__(self, folder: Path, key_file: Path | None) -> None:
        self._path = folder / _FILE
        self._folder = folder
        self._key_file = key_file

    def get(self, name: str) -> str | None:
        """A secret, if it is there."""
        sealed = self._read().get(name)
        if sealed is None:
            return None
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.b64decode(sealed)
            opened = AESGCM(self._key()).decrypt(
                raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], name.encode()
            )
        except (InvalidTag, ValueError, binascii.Error):
            raise SecretError(
                f"The secret {name} cannot be decrypted: the key is another one, or the file is damaged.",
                remedy=f"Give back the right key, or store it anew: `fleetprompt-edge secrets set {name}`.",
            ) from None
        return opened.decode()

    def put(self, name: str, value: str) -> None:
        """Keep a secret; it is read back and compared."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise SecretError(
                "An encrypted file needs the package cryptography.",
                remedy="`pip install cryptography`, or use the system's keyring.",
            ) from None
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(self._key()).encrypt(nonce, value.encode(), name.encode())
        self._write({**self._read(), name: base64.b64encode(sealed).decode()})
        if self.get(name) != value:
            raise SecretError("The encrypted file does not give the secret back.")

    def remove(self, name: str) -> bool:
        """Forget a secret; whether there was one."""
        kept = self._read()
        if kept.pop(name, None) is None:
            return False
        self._write(kept)
        return True

    def _key(self) -> bytes:
        handed = _handed_over()
        path = handed or self._key_file
        if path is None:
            raise SecretError(
                "There is no key for the encrypted file.",
                remedy="Make one with `fleetprompt-edge secrets new-key PATH` and set secrets.key_file.",
            )
        if path.parent.resolve() == self._folder.resolve():
            raise SecretError(
                "The key lies beside what it encrypts, where it protects nothing.",
                remedy="Move it out of the state folder and set secrets.key_file to it.",
            )
        try:
            # What systemd hands over may show rights of a group that it gives to this service alone.
            if os.name == "posix" and handed is None and path.stat().st_mode & 0o077:
                raise SecretError(
                    f"Others can read the key file {path}.", remedy=f"`chmod 600 {path}`"
                )
            key = base64.b64decode(path.read_text(encoding="ascii"), validate=False)
        except (OSError, UnicodeError, binascii.Error) as error:
            raise SecretError(
                f"The key file {path} cannot be read.",
                remedy="Put it back from a backup; or make one with `fleetprompt-edge secrets new-key` "
                "and store both secrets again.",
            ) from error
        if len(key) != _KEY_BYTES:
            raise SecretError(
                f"{path} holds no key.", remedy="`fleetprompt-edge secrets new-key PATH`"
            )
        return key

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SecretError(f"{self._path} cannot be read.") from error
        return dict(found)

    def _write(self, kept: dict[str, str]) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            write_private(fresh, json.dumps(kept))
            fresh.replace(self._path)
        except OSError as error:
            raise SecretError(f"{self._path} cannot be written: {error.strerror}.") from error
