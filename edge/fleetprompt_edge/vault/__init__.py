"""Where Bridge's password and FleetPrompt's key are kept: never in the profile, never in clear.

1. The system's keyring, if it is a real one.
2. systemd credentials: ``bridge-password`` and ``api-key`` in ``$CREDENTIALS_DIRECTORY``.
3. A file in the state folder, encrypted with a key that is kept elsewhere.
"""

import os
from pathlib import Path
from typing import Protocol

from fleetprompt_edge.errors import SecretError
from fleetprompt_edge.profile import Profile

BRIDGE_PASSWORD = "bridge-password"  # noqa: S105 - a name, not a password
API_KEY = "api-key"
NAMES = (BRIDGE_PASSWORD, API_KEY)


class Vault(Protocol):
    """A place for secrets. Every method may raise ``SecretError``."""

    @property
    def label(self) -> str:
        """What a person calls it."""

    def get(self, name: str) -> str | None:
        """A secret, if it is there."""

    def put(self, name: str, value: str) -> None:
        """Keep a secret, and be sure that it can be read again."""

    def remove(self, name: str) -> bool:
        """Forget a secret; whether there was one."""


def vaults(profile: Profile, folder: Path) -> list[Vault]:
    """The places that the profile allows and that exist here, first choice first."""
    from fleetprompt_edge.vault.credentials import CredentialVault
    from fleetprompt_edge.vault.file import FileVault, key_file_of
    from fleetprompt_edge.vault.ring import RingVault, real_backend

    chosen = profile.secrets.store
    found: list[Vault] = []
    if chosen in ("auto", "systemd") and os.environ.get("CREDENTIALS_DIRECTORY"):
        found.append(CredentialVault(Path(os.environ["CREDENTIALS_DIRECTORY"])))
    if chosen == "keyring" or (chosen == "auto" and real_backend() is not None):
        found.append(RingVault(profile.connector_id))
    key_file = key_file_of(profile)
    if chosen == "file" or (chosen == "auto" and key_file):
        found.append(FileVault(folder, key_file))
    if not found:
        raise SecretError(
            "There is no safe place for secrets: no keyring, no systemd credentials, no key file.",
            remedy="Make a key with `fleetprompt-edge secrets new-key PATH` and set secrets.key_file "
            "to it, or install a keyring.",
        )
    return found


def read(profile: Profile, folder: Path, name: str) -> str:
    """A secret from the first place that has it; ``SecretError`` if none does."""
    for vault in vaults(profile, folder):
        value = vault.get(name)
        if value:
            return value
    raise SecretError(
        f"The secret {name} is not there.",
        remedy=f"Store it: `fleetprompt-edge secrets set {name}`.",
    )
