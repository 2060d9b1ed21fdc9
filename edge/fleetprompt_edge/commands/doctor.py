"""``doctor``: one check after the other, each with its cause and how to mend it.

A check whose ground is missing is skipped rather than failed, so that one root cause shows alone.
"""

import argparse
import shutil
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fleetprompt_edge import vault
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.commands.shared import OK, UNHEALTHY, answer, answering, opened, profile_of
from fleetprompt_edge.commands.working import knock
from fleetprompt_edge.errors import CertificateError, EdgeError, FolderGoneError
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.imap.folders import watched_folders
from fleetprompt_edge.imap.tls import fingerprint
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.upload.platform import Me, Platform

_NEAR = 11  # ports from Bridge's first one, which takes the next that is free
_LEAST_FREE = 100 * 1024 * 1024
_MOST_AHEAD = 300.0
_SCOPES = ("signals:write", "directives:execute")


@dataclass
class Finding:
    """What a check found. ``skipped``: something before it failed."""

    name: str
    state: Literal["well", "bad", "skipped"]
    message: str = ""
    remedy: str = ""


@dataclass
class Examination:
    """The checks in their order, and what they found out for those behind them."""

    profile: Profile
    folder: Path
    findings: list[Finding] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    session: BridgeSession | None = None
    me: Me | None = None

    def check(self, name: str, needs: tuple[str, ...], work: Callable[[], str]) -> None:
        """Run one check, if those that it needs went well."""
        bad = {one.name for one in self.findings if one.state != "well"}
        if bad & set(needs):
            self.findings.append(Finding(name, "skipped"))
            return
        try:
            self.findings.append(Finding(name, "well", work()))
        except EdgeError as error:
            self.findings.append(Finding(name, "bad", error.message, error.remedy))


@answering
def doctor(asked: argparse.Namespace) -> int:
    """Check everything; the exit code says whether all is well."""
    profile, folder = profile_of(asked)
    found = Examination(profile, folder)
    try:
        _examine(found)
    finally:
        if found.session is not None:
            found.session.close()
    healthy = all(one.state == "well" for one in found.findings)
    content: dict[str, Any] = {
        "ok": healthy,
        "checks": [
            {"name": one.name, "state": one.state, "message": one.message, "remedy": one.remedy}
            for one in found.findings
        ],
    }
    lines = []
    for one in found.findings:
        lines.append(f"{one.state:7} {one.name}: {one.message}".rstrip(": "))
        if one.remedy:
            lines.append(f"        → {one.remedy}")
    answer(asked, content, "\n".join(lines))
    return OK if healthy else UNHEALTHY


def _examine(found: Examination) -> None:
    found.check("database", (), lambda: _database(found))
    found.check("disk", ("database",), lambda: _disk(found))
    found.check("bridge password", (), lambda: _secret(found, vault.BRIDGE_PASSWORD))
    found.check("platform key", (), lambda: _secret(found, vault.API_KEY))
    found.check("bridge port", (), lambda: _port(found.profile))
    found.check("bridge certificate", ("bridge port",), lambda: _certificate(found.profile))
    needs = ("bridge port", "bridge certificate", "bridge password")
    found.check("bridge login", needs, lambda: _login(found))
    found.check("folders", ("bridge login", *needs), lambda: _folders(found))
    found.check("platform", ("platform key",), lambda: _platform(found))
    found.check("key", ("platform", "platform key"), lambda: _key(found))
    found.check("clock", ("platform", "platform key"), lambda: _clock(found))
    found.check("queue", ("database",), lambda: _queue(found))


def _database(found: Examination) -> str:
    with opened(found.folder) as store, store.transaction():
        store.notes.put("doctor", "was here")
        store.notes.remove("doctor")
    return str(found.folder)


def _disk(found: Examination) -> str:
    free = shutil.disk_usage(found.folder).free
    if free < _LEAST_FREE:
        raise EdgeError(
            f"Only {free // 1024 // 1024} MB are free for {found.folder}.",
            remedy="Free some disk space.",
        )
    return f"{free // 1024 // 1024} MB free"


def _secret(found: Examination, name: str) -> str:
    found.secrets[name] = vault.read(found.profile, found.folder, name)
    return "there"


def _port(profile: Profile) -> str:
    imap = profile.bridge.imap
    if _listens(imap.host, imap.port):
        return f"{imap.host}:{imap.port}"
    others = [
        port
        for port in range(1143, 1143 + _NEAR)
        if port != imap.port and _listens(imap.host, port)
    ]
    if others:
        raise EdgeError(
            f"Nothing listens on {imap.host}:{imap.port}, but something does on {others[0]}.",
            remedy=f"Bridge took another port: compare with its settings and set bridge.imap.port = "
            f"{others[0]}.",
        )
    raise EdgeError(
        f"Nothing listens on {imap.host}:{imap.port}.",
        remedy="Start Bridge; if it runs, see that it is online and logged in, and compare the port.",
    )


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _certificate(profile: Profile) -> str:
    bridge = profile.bridge
    try:
        BridgeSession(bridge.imap, bridge.certificate_sha256, ["Subject"], read_seconds=10).close()
    except CertificateError as error:
        if bridge.certificate_sha256 is not None:
            raise
        shown = shown_certificate(profile)
        raise CertificateError(
            f"Bridge's certificate is not pinned. It is {shown}.",
            remedy=f"Compare it with Bridge's (its settings export it), then set "
            f'bridge.certificate_sha256 = "{shown}".',
        ) from error
    return "pinned" if bridge.certificate_sha256 else "vouched for by an authority"


def shown_certificate(profile: Profile) -> str:
    """The fingerprint of the certificate that is shown, whatever it is worth."""
    import imaplib

    imap = profile.bridge.imap
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        if imap.tls == "implicit":
            client: imaplib.IMAP4 = imaplib.IMAP4_SSL(
                imap.host, imap.port, ssl_context=context, timeout=10
            )
        else:
            client = imaplib.IMAP4(imap.host, imap.port, timeout=10)
            client.starttls(context)
        connection = client.socket()
        found = connection.getpeercert(True) if isinstance(connection, ssl.SSLSocket) else b""
        client.shutdown()
    except (OSError, imaplib.IMAP4.error) as error:
        raise CertificateError("Bridge's certificate cannot be read.") from error
    return fingerprint(found or b"")


def _login(found: Examination) -> str:
    found.session = knock(found.profile, found.secrets[vault.BRIDGE_PASSWORD])
    return "by IDLE" if found.session.idles else "by asking; Bridge offers no IDLE"


def _folders(found: Examination) -> str:
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


def _platform(found: Examination) -> str:
    platform = Platform(
        found.profile.fleetprompt.base_url, found.secrets[vault.API_KEY], SystemClock()
    )
    try:
        found.me = platform.me()
    finally:
        platform.close()
    return f"tenant {found.me.tenant}"


def _key(found: Examination) -> str:
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


def _clock(found: Examination) -> str:
    ahead = found.me.ahead if found.me else None
    if ahead is not None and abs(ahead) > _MOST_AHEAD:
        way = "ahead" if ahead > 0 else "behind"
        raise EdgeError(
            f"This machine's clock is {abs(ahead) / 60:.0f} minutes {way} of FleetPrompt's.",
            remedy="Set it, and let it be kept (NTP).",
        )
    return "right"


def _queue(found: Examination) -> str:
    with opened(found.folder) as store, store.transaction():
        backlog = store.queue.backlog()
        full = store.queue.bytes_waiting() >= found.profile.limits.max_queue_bytes
    if full:
        raise EdgeError(
            f"{backlog.signals} signals wait; there is no room for more, mail stays in the mailbox.",
            remedy="Mend what the checks of the platform name; see `fleetprompt-edge queue list`.",
        )
    if backlog.dead_letters:
        raise EdgeError(
            f"FleetPrompt refused {backlog.dead_letters} signals.",
            remedy="See why: `fleetprompt-edge queue list`; then `queue retry` or `queue drop`.",
        )
    return f"{backlog.signals} signals wait"
