"""The system's keyring: macOS Keychain, Windows Credential Manager, Secret Service.

keyring also comes with backends that keep a secret in clear or nowhere, and takes them without a
word (research/edge.md §5), so a backend counts only if it calls itself recommended and is none of
those. A locked keyring may wait for somebody to type for ever, so each call has five seconds.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import keyring
import keyring.backend
import keyring.errors

from fleetprompt_edge.errors import SecretError

T = TypeVar("T")

LIMIT = 5.0  # seconds
_UNSAFE = ("keyring.backends.null", "keyring.backends.fail", "keyrings.alt")


def real_backend() -> keyring.backend.KeyringBackend | None:
    """The backend that keyring would use, if it is a safe one."""
    try:
        return _limited(_choose)
    except SecretError:
        return None


class RingVault:
    """The secrets of one connector in the system's keyring."""

    label = "system keyring"

    def __init__(self, connector_id: str) -> None:
        self._service = f"fleetprompt-edge:{connector_id}"
        backend = real_backend()
        if backend is None:
            raise SecretError(
                "There is no keyring here that keeps secrets safe.",
                remedy='Unlock or install one, or set secrets.store = "file" with a key file.',
            )
        self._backend = backend

    def get(self, name: str) -> str | None:
        """A secret, if it is there."""
        return _limited(lambda: self._backend.get_password(self._service, name))

    def put(self, name: str, value: str) -> None:
        """Keep a secret; it is read back and compared."""
        _limited(lambda: self._backend.set_password(self._service, name, value))
        if self.get(name) != value:
            raise SecretError(
                "The keyring took the secret and does not give it back.",
                remedy='Set secrets.store = "file" with a key file.',
            )

    def remove(self, name: str) -> bool:
        """Forget a secret; whether there was one."""
        if self.get(name) is None:
            return False
        _limited(lambda: self._backend.delete_password(self._service, name))
        return True


def _choose() -> keyring.backend.KeyringBackend | None:
    backend = keyring.get_keyring()
    members = getattr(backend, "backends", None)
    candidates: list[Any] = list(members) if members else [backend]
    for one in candidates:
        if type(one).__module__.startswith(_UNSAFE) or "Plaintext" in type(one).__name__:
            continue
        if one.priority >= 1:
            return one  # type: ignore[no-any-return]
    return None


def _limited(call: Callable[[], T]) -> T:
    """The call's result; ``SecretError`` if it fails or takes longer than ``LIMIT``."""
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((True, call()))
        except Exception as error:  # noqa: BLE001 - backends raise whatever their system raises
            answers.put((False, type(error).__name__))

    threading.Thread(target=work, name="keyring", daemon=True).start()
    try:
        worked, found = answers.get(timeout=LIMIT)
    except queue.Empty:
        raise SecretError(
            f"The keyring did not answer within {LIMIT:g} s; it is probably locked.",
            remedy="Unlock it, or use systemd credentials or a key file.",
        ) from None
    if not worked and found == keyring.errors.KeyringLocked.__name__:
        raise SecretError("The keyring is locked.", remedy="Unlock it and try again.")
    if not worked:
        raise SecretError(f"The keyring failed ({found}).", remedy="Unlock it and try again.")
    return found  # type: ignore[no-any-return]
