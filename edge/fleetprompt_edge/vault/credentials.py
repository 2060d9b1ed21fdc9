"""Secrets that systemd hands to the service: ``LoadCredentialEncrypted=api-key:…``."""

from pathlib import Path

from fleetprompt_edge.errors import SecretError


class CredentialVault:
    """Reads ``$CREDENTIALS_DIRECTORY``; who writes there is systemd."""

    label = "systemd credentials"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> str | None:
        """A secret, if it is there."""
        try:
            return (self._folder / name).read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeError) as error:
            raise SecretError(f"The credential {name} cannot be read.") from error

    def put(self, name: str, value: str) -> None:
        """Not from here."""
        raise SecretError(
            "systemd credentials are made by the administrator.",
            remedy=f"`systemd-creds encrypt --name={name} - FILE`, then LoadCredentialEncrypted= in the "
            "unit.",
        )

    def remove(self, name: str) -> bool:
        """Not from here."""
        raise SecretError("systemd credentials are removed by the administrator.")
