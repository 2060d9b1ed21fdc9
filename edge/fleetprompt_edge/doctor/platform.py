"""Checks of FleetPrompt: whether it is reached, what the key is good for, and whose clock is right."""

import socket
import ssl

from fleetprompt_edge import vault
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.doctor.findings import Examination
from fleetprompt_edge.errors import EdgeError, PlatformDownError
from fleetprompt_edge.upload.platform import Platform

_MOST_AHEAD = 300.0  # seconds
_SCOPES = ("signals:write", "directives:execute")


def reached(found: Examination) -> str:
    """Whether FleetPrompt answers, and knows the key."""
    url = found.profile.fleetprompt.base_url
    platform = Platform(url, found.secrets[vault.API_KEY], SystemClock())
    try:
        found.me = platform.me()
    except PlatformDownError as error:
        raise _nearer(error) from error
    finally:
        platform.close()
    return f"tenant {found.me.tenant}"


def _nearer(error: PlatformDownError) -> EdgeError:
    """What it was, as far as the network's own error tells."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            if "not yet valid" in cause.verify_message or "expired" in cause.verify_message:
                return EdgeError(
                    f"FleetPrompt's certificate is refused: {cause.verify_message}.",
                    remedy="Set this machine's clock; if it is right, tell FleetPrompt's operator.",
                )
            return EdgeError(
                f"FleetPrompt's certificate is refused: {cause.verify_message}.",
                remedy="See whether a proxy stands between; give its certificate in SSL_CERT_FILE.",
            )
        if isinstance(cause, socket.gaierror):
            return EdgeError(
                "FleetPrompt's name is not found.",
                remedy="See that this machine is online, and compare fleetprompt.base_url.",
            )
        if isinstance(cause, ConnectionRefusedError):
            return EdgeError(
                "FleetPrompt's machine refuses the connection.",
                remedy="Compare fleetprompt.base_url, its port too; else wait until it is up again.",
            )
        cause = cause.__cause__ or cause.__context__
    return error


def key(found: Examination) -> str:
    """Whether the key is this connector's, and may do what it must."""
    me = found.me
    assert me is not None  # noqa: S101 - the check before went well
    wanted = found.profile.fleetprompt.organization_id
    if wanted is not None and me.organization_id != wanted:
        raise EdgeError(
            "The key belongs to another organization than the profile names.",
            remedy="Use a key of that organization, or mend fleetprompt.organization_id.",
        )
    if me.connector_id not in (None, found.profile.connector_id):
        raise EdgeError(
            "The key was made for another connector.",
            remedy=f"Make a key for connector {found.profile.connector_id}.",
        )
    missing = [one for one in _SCOPES if one not in me.scopes]
    if missing:
        raise EdgeError(f"The key may not {', '.join(missing)}.", remedy="Make a key of kind conn.")
    return "good"


def clock(found: Examination) -> str:
    """Whether this machine's clock is about FleetPrompt's."""
    ahead = found.me.ahead if found.me else None
    if ahead is not None and abs(ahead) > _MOST_AHEAD:
        way = "ahead" if ahead > 0 else "behind"
        raise EdgeError(
            f"This machine's clock is {abs(ahead) / 60:.0f} minutes {way} of FleetPrompt's.",
            remedy="Set it, and let it be kept (NTP).",
        )
    return "right"
