"""``pair``: from a code to a connector that is ready to run.

1. Find Bridge, show its certificate, log in, and see the folders: what fails here leaves the code unused.
2. Exchange the code for the key, and store it before anything else.
3. Send the first heartbeat, which shows FleetPrompt that all of it works.
"""

import argparse
import getpass
import sys
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleetprompt_edge import vault
from fleetprompt_edge.bridge_servers import (
    FIRST_IMAP_PORT,
    FIRST_SMTP_PORT,
    IMAP_GREETING,
    SMTP_GREETING,
    find,
    knock,
    shown_certificate,
)
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.commands.shared import OK, answering, opened
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import CertificateError, EdgeError, SecretError
from fleetprompt_edge.new_file import write_private
from fleetprompt_edge.places import state_folder
from fleetprompt_edge.profile import (
    Bridge,
    FleetPrompt,
    Health,
    Imap,
    Limits,
    Mailbox,
    Privacy,
    Profile,
    Secrets,
    Sending,
    Smtp,
    read_option,
)
from fleetprompt_edge.reading import Problem, ProfileError, load, profile_path
from fleetprompt_edge.running.health import Health as Wellbeing
from fleetprompt_edge.running.post import Heart
from fleetprompt_edge.store.lock import running_process
from fleetprompt_edge.telling import tell
from fleetprompt_edge.toml_text import flat, new_profile
from fleetprompt_edge.upload.pairing import exchange
from fleetprompt_edge.upload.platform import Platform
from fleetprompt_edge.upload.uploader import Uploader
from fleetprompt_edge.vault.file import new_key


@answering
def pair(asked: argparse.Namespace) -> int:
    """Make a profile and a key of a code."""
    path = profile_path(asked.profile)
    known = path.exists()
    profile = load(path)[0] if known else _new(asked, path)
    _must_have_a_place(profile, new=not known)
    _must_be_writable(profile, path.parent if not known else None)
    profile = _pinned(asked, profile)
    password = _password(profile, known=known)
    session = knock(profile, password)
    try:
        folders = [one.name for one in session.folders() if one.selectable]
    finally:
        session.close()
    paired = exchange(profile.fleetprompt.base_url, asked.code, profile.bridge.username)
    if known and paired.connector_id != profile.connector_id:
        raise EdgeError(
            "The code is for another connector than this profile's.",
            remedy="Make a new code for it, and pair with another --profile.",
        )
    profile = replace(profile, connector_id=paired.connector_id)
    folder = state_folder(profile)
    _put(profile, folder, vault.API_KEY, paired.key)
    _put(profile, folder, vault.BRIDGE_PASSWORD, password)
    if not known:
        given = {key: value for key, value in flat(profile).items() if value is not None}
        write_private(path, new_profile(given))
    _beat(profile, folder, paired.key)
    content = {
        "ok": True,
        "profile": str(path),
        "connector_id": paired.connector_id,
        "label": paired.label,
        "tenant": paired.tenant,
        "certificate_sha256": profile.bridge.certificate_sha256,
        "folders": folders,
        "warning": paired.warning,
    }
    words = [
        f"Paired with {paired.tenant} as {paired.label!r}; wrote {path}."
        if not known
        else f"Paired with {paired.tenant} as {paired.label!r}.",
        f"Bridge's certificate: {profile.bridge.certificate_sha256}",
        f"Folders: {', '.join(folders)}",
        *([paired.warning] if paired.warning else []),
        "It runs already: restart it, since its former key has ended."
        if running_process(folder) is not None
        else "Now start it: `fleetprompt-edge run`, or for good: `fleetprompt-edge service install`.",
    ]
    tell(asked, content, "\n".join(words))
    return OK


def _new(asked: argparse.Namespace, path: Path) -> Profile:
    given: dict[str, Any] = {}
    problems = []
    for argument, key in (("url", "fleetprompt.base_url"), ("username", "bridge.username")):
        value = getattr(asked, argument)
        if value is None:
            problems.append(Problem(f"--{argument}", "is needed for a new profile"))
            continue
        try:
            given[argument] = read_option(key, value)
        except ValueError as error:
            problems.append(Problem(f"--{argument}", str(error)))
    if problems:
        raise ProfileError(path, problems)
    imap = find(asked.imap_port, FIRST_IMAP_PORT, IMAP_GREETING, "IMAP")
    smtp = find(asked.smtp_port, FIRST_SMTP_PORT, SMTP_GREETING, "SMTP")
    key_file = None
    if asked.key_file:
        key_file = Path(asked.key_file).expanduser().absolute()
        if not key_file.exists():
            new_key(key_file)
    return Profile(
        connector_id=str(uuid.uuid4()),
        fleetprompt=FleetPrompt(base_url=given["url"]),
        bridge=Bridge(
            username=given["username"],
            imap=Imap(port=imap.port, tls=imap.tls),
            smtp=Smtp(port=smtp.port, tls=smtp.tls),
        ),
        mailbox=Mailbox(),
        privacy=Privacy(),
        sending=Sending(),
        limits=Limits(),
        health=Health(),
        secrets=Secrets(
            store="file" if key_file else "auto", key_file=str(key_file) if key_file else None
        ),
    )


def _must_have_a_place(profile: Profile, *, new: bool) -> None:
    """Said now rather than after the code is used up."""
    try:
        vault.vaults(profile, state_folder(profile))
    except SecretError as error:
        if not new:
            raise
        raise SecretError(
            error.message,
            remedy="Add --key-file PATH: secrets are then kept in a file that this key opens.",
        ) from error


def _must_be_writable(profile: Profile, config: Path | None) -> None:
    """The same of the folders that the profile, if it is new, and the secrets go to."""
    state = state_folder(profile)
    if config is not None and state.name == profile.connector_id:
        # Another id comes with the key.
        state = state.parent
    for folder in filter(None, (config, state)):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise EdgeError(
                f"{folder} cannot be written: {error.strerror}.",
                remedy="Check owner and permissions of that folder; the code is still good.",
            ) from error


def _pinned(asked: argparse.Namespace, profile: Profile) -> Profile:
    """The profile with the certificate that is shown, once the owner agrees to it."""
    if profile.bridge.certificate_sha256 is not None:
        return profile
    shown = shown_certificate(profile.bridge.imap)
    expected = asked.fingerprint
    if expected is not None:
        if read_option("bridge.certificate_sha256", expected) != shown:
            raise CertificateError(f"Bridge shows another certificate: {shown}.")
    elif sys.stdin.isatty():
        sys.stderr.write(f"Bridge's certificate (SHA-256):\n{shown}\n")
        if input("Is it the one that Bridge exports? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CertificateError("The certificate was not accepted; nothing was sent.")
    else:
        raise CertificateError(
            f"Bridge's certificate is not pinned. It is {shown}.",
            remedy=f"Compare it with Bridge's, then say so: --fingerprint {shown}",
        )
    return replace(profile, bridge=replace(profile.bridge, certificate_sha256=shown))


def _password(profile: Profile, *, known: bool) -> str:
    if known:
        for one in vault.vaults(profile, state_folder(profile)):
            if kept := one.get(vault.BRIDGE_PASSWORD):
                return kept
    typed = sys.stdin.isatty()
    asked_for = "Bridge's password: "
    given = getpass.getpass(asked_for) if typed else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise SecretError(
            "Bridge's password was not given.",
            remedy="Type the one that Bridge shows, or pipe it in.",
        )
    return given


def _put(profile: Profile, folder: Path, name: str, value: str) -> None:
    chosen = vault.vaults(profile, folder)
    place = next((one for one in chosen if one.label != "systemd credentials"), chosen[0])
    place.put(name, value)


def _beat(profile: Profile, folder: Path, key: str) -> None:
    clock = SystemClock()
    platform = Platform(profile.fleetprompt.base_url, key, clock)
    try:
        me = platform.me()
        with opened(folder) as store:
            writer = Writer(profile, me.tenant)
            Heart(store, Wellbeing(store, clock), writer, clock, uuid.uuid4().hex).beat()
            Uploader(store, platform, clock).send_some()
    finally:
        platform.close()
