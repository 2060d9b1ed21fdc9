"""What can go wrong, in the five classes that the platform knows, each with a code of its own.

A message is for the customer: it says what is wrong and holds neither a secret nor a line of mail.
"""

from typing import Literal

ErrorKind = Literal["auth", "network", "rate_limit", "validation", "unknown"]
_BY_ITSELF = "It is tried again by itself; if it lasts, `fleetprompt-edge doctor` says why."


class EdgeError(Exception):
    """Base of everything that is told to a person and, as ``connector.error``, to the platform."""

    kind: ErrorKind = "unknown"
    code: str = "unexpected"
    remedy: str = ""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.remedy


class StoreError(EdgeError):
    """The local database cannot be used: full disk, no right to write, damage, a newer version."""

    code = "store"


class ProfileBusyError(EdgeError):
    """Another connector runs with this profile."""

    kind, code = "validation", "already_running"


class SecretError(EdgeError):
    """A secret is missing or no place to keep it is safe."""

    kind, code = "auth", "secret"


class BridgeDownError(EdgeError):
    """Nothing answers at Bridge's address, or the connection was lost."""

    kind, code, remedy = "network", "bridge_unreachable", _BY_ITSELF


class BridgeLoginError(EdgeError):
    """Bridge refused user name or password, or does not know the account yet."""

    kind, code = "auth", "bridge_login"


class CertificateError(EdgeError):
    """The certificate is not the pinned one; nothing was sent."""

    kind, code = "auth", "bridge_certificate"


class BridgeTlsError(EdgeError):
    """No encrypted connection could be made; nothing was sent."""

    kind, code, remedy = "network", "bridge_tls", _BY_ITSELF


class FolderGoneError(EdgeError):
    """A watched folder does not exist, or no longer."""

    kind, code = "validation", "folder_gone"


class BridgeRefusedError(EdgeError):
    """Bridge answered a command with NO or BAD; the connection goes on."""

    code, remedy = "bridge_refused", _BY_ITSELF


class PlatformDownError(EdgeError):
    """FleetPrompt cannot be reached, or what answered was not FleetPrompt."""

    kind, code, remedy = "network", "platform_unreachable", _BY_ITSELF


class PlatformAuthError(EdgeError):
    """The connector's key is unknown, revoked, or for something else."""

    kind, code = "auth", "platform_key"


class PlatformBusyError(EdgeError):
    """FleetPrompt asks to wait; ``retry_after`` in seconds, if it said how long."""

    kind, code, remedy = "rate_limit", "platform_busy", _BY_ITSELF

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PlatformRefusedError(EdgeError):
    """FleetPrompt refused a request as a whole; ``problem`` is its name for why."""

    kind, code = "validation", "platform_refused"

    def __init__(self, message: str, problem: str, *, status: int) -> None:
        super().__init__(message)
        self.problem = problem
        self.status = status
