"""Checks of Bridge: port, certificate, login, folders, and its way out."""

from fleetprompt_edge import vault
from fleetprompt_edge.bridge_servers import (
    FIRST_IMAP_PORT,
    IMAP_GREETING,
    NEAR,
    connection_mode,
    knock,
    listens,
    shown_certificate,
)
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.doctor.findings import Examination
from fleetprompt_edge.errors import BridgeTlsError, CertificateError, EdgeError, FolderGoneError
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.imap.folders import watched_folders
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.sending.smtp import Courier


def port(profile: Profile) -> str:
    """Whether Bridge's IMAP server is where the profile says, and speaks as it says."""
    imap = profile.bridge.imap
    where = f"{imap.host}:{imap.port}"
    if not listens(imap.host, imap.port):
        raise _not_there(profile)
    mode = connection_mode(imap.host, imap.port, IMAP_GREETING)
    if mode is None:
        raise EdgeError(
            f"What listens on {where} is no IMAP server.",
            remedy="Compare bridge.imap.port with the IMAP port in Bridge's settings.",
        )
    if mode != imap.tls:
        raise BridgeTlsError(
            f"{where} speaks {mode}, not {imap.tls}.", remedy=f'Set bridge.imap.tls = "{mode}".'
        )
    return where


def _not_there(profile: Profile) -> EdgeError:
    imap = profile.bridge.imap
    for other in range(FIRST_IMAP_PORT, FIRST_IMAP_PORT + NEAR):
        if other != imap.port and connection_mode(imap.host, other, IMAP_GREETING):
            return EdgeError(
                f"Nothing listens on {imap.host}:{imap.port}, but an IMAP server does on {other}.",
                remedy="Bridge took another port: compare with its settings and set "
                f"bridge.imap.port = {other}.",
            )
    return EdgeError(
        f"Nothing listens on {imap.host}:{imap.port}.",
        remedy="Start Bridge; if it runs, see that it is online and logged in, and compare the port.",
    )


def certificate(profile: Profile) -> str:
    """Whether the certificate is the pinned one."""
    bridge = profile.bridge
    try:
        BridgeSession(bridge.imap, bridge.certificate_sha256, ["Subject"], read_seconds=10).close()
    except CertificateError as error:
        if bridge.certificate_sha256 is not None:
            raise
        shown = shown_certificate(bridge.imap)
        raise CertificateError(
            f"Bridge's certificate is not pinned. It is {shown}.",
            remedy="Compare it with Bridge's (its settings export it), then set "
            f'bridge.certificate_sha256 = "{shown}".',
        ) from error
    return "pinned" if bridge.certificate_sha256 else "vouched for by an authority"


def login(found: Examination) -> str:
    """Whether Bridge lets us in."""
    found.session = knock(found.profile, found.secrets[vault.BRIDGE_PASSWORD])
    return "by IDLE" if found.session.idles else "by asking; Bridge offers no IDLE"


def folders(found: Examination) -> str:
    """Whether every watched folder is there."""
    assert found.session is not None  # noqa: S101 - the login before went well
    listed = found.session.folders()
    there = {one.name for one in listed if one.selectable}
    watched = watched_folders(found.profile.mailbox, listed)
    gone = [one.name for one in watched if one.name not in there]
    if gone:
        raise FolderGoneError(
            f"Bridge has no folder {gone[0]!r}.",
            remedy=f"mailbox.folders may name: {', '.join(sorted(there))}.",
        )
    return ", ".join(one.name for one in watched)


def sending(found: Examination) -> str:
    """Whether mail could be sent; looked at only where the profile allows it to be."""
    if not found.profile.sending.allowed_from_addresses:
        return "not allowed by the profile"
    Courier(found.profile, found.secrets[vault.BRIDGE_PASSWORD], SystemClock()).try_login()
    return "Bridge's SMTP server takes the login"
