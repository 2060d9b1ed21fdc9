"""Planted faults, and what the doctor says of each: the one true cause, and how to mend it."""

import asyncio
import json
import re
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import httpx
import keyring
import keyring.errors
import pytest
from fleetprompt_edge import bridge_servers
from fleetprompt_edge.cli import main
from fleetprompt_edge.doctor import bridge as bridge_checks
from fleetprompt_edge.store import Store
from fleetprompt_edge.vault import ring

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key, revoke_key
from fleetprompt.tenants.service import create_tenant
from tests.api.serving import Server
from tests.doubles.smtp import running_smtp
from tests.edge.connecting import Customer, customer
from tests.edge.dovecot import Dovecot, bridge_certificate
from tests.edge.in_process import command, without_keyring
from tests.edge.ingesting import CONNECTOR
from tests.edge.test_vault import MemoryKeyring
from tests.ports import free_port

pytestmark = pytest.mark.slow

NOBODY = "0198c0de-0000-7000-8000-000000000000"


class Served(NamedTuple):
    """A platform with a tenant; of two keys of its connector, the other one was revoked."""

    url: str
    key: str
    revoked: str


@pytest.fixture(scope="module")
def platform(settings: Settings, served: Server) -> Served:
    """A tenant's keys on it."""

    async def keys() -> list[str]:
        tenant = await create_tenant(settings, slug=f"t{new_id().hex[-12:]}", name="Tenant")
        asked = KeyRequest("conn", "test", connector_id=CONNECTOR)
        async with Database.application(settings) as database, database.platform() as session:
            _, good = await issue_key(session, settings, tenant, asked)
            made, bad = await issue_key(session, settings, tenant, asked)
            await revoke_key(session, tenant, made.id)
        return [good, bad]

    return Served(served.url, *asyncio.run(keys()))


@pytest.fixture
def home(platform: Served, server: Dovecot, tmp_path: Path) -> Customer:
    without_keyring()
    return customer(tmp_path / "home", server, platform.url, platform.key)


def set_option(home: Customer, name: str, value: str) -> None:
    """Give an option of the profile another value, whether it is set or shown in a comment."""
    text, count = re.subn(
        rf"^(?:# )?{name} = .*$", f"{name} = {value}", home.profile.read_text(), count=1, flags=re.M
    )
    assert count == 1
    home.profile.write_text(text)


def store_secret(home: Customer, name: str, value: str) -> None:
    assert command(home.profile, "secrets", "set", name, given=f"{value}\n")[0] == 0


def remove_secret(home: Customer, name: str) -> None:
    assert command(home.profile, "secrets", "remove", name)[0] == 0


def unpin(home: Customer) -> None:
    lines = home.profile.read_text().splitlines()
    kept = [one for one in lines if not one.startswith("certificate_sha256")]
    home.profile.write_text("\n".join(kept))


def damage(home: Customer) -> None:
    Store(home.state).close()
    path = home.state / "connector.sqlite3"
    path.write_bytes(b"\xff" * 5000 + path.read_bytes()[5000:])


def from_the_future(home: Customer) -> None:
    Store(home.state).close()
    connection = sqlite3.connect(home.state / "connector.sqlite3")
    connection.execute("PRAGMA user_version = 999")
    connection.close()


def fill(home: Customer) -> None:
    set_option(home, "max_queue_bytes", "65536")
    with Store(home.state) as store, store.transaction():
        store.queue.put("k", "t.t", "x" * 70_000, 1)


def refuse_a_signal(home: Customer) -> None:
    with Store(home.state) as store, store.transaction():
        store.queue.put("k", "t.t", "{}", 1)
        store.queue.bury(store.queue.first(1, 100)[0].seq, 1, "validation-failed", "no type")


def allow_sending_on_a_wrong_port(home: Customer) -> None:
    text = home.profile.read_text()
    begin, smtp, rest = text.partition("[bridge.smtp]")
    home.profile.write_text(begin + smtp + rest.replace("# port = 1025", "port = 9", 1))
    set_option(home, "allowed_from_addresses", '["me@proton.me"]')


Planted = AbstractContextManager[object]


class Locked(MemoryKeyring):
    """A keyring that nobody has unlocked: it says so, or waits for somebody to type."""

    def __init__(self, *, waits: bool) -> None:
        super().__init__()
        self._waits = waits

    def get_password(self, service: str, username: str) -> str | None:
        if self._waits:
            time.sleep(5)
        raise keyring.errors.KeyringLocked


@contextmanager
def locked_keyring(home: Customer, *, waits: bool) -> Iterator[None]:
    set_option(home, "store", '"keyring"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "LIMIT", 0.2)
        keyring.set_keyring(Locked(waits=waits))
        yield


@contextmanager
def bridge_on_another_port(home: Customer) -> Iterator[None]:
    """Nothing on the profile's port, Bridge where it would look next."""
    (found,) = re.findall(r"^port = (\d+)$", home.profile.read_text(), re.M)
    set_option(home, "port", str(free_port()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridge_checks, "FIRST_IMAP_PORT", int(found) - 1)
        patch.setattr(bridge_checks, "NEAR", 2)
        yield


@contextmanager
def mail_server_that_is_no_imap(home: Customer) -> Iterator[None]:
    with running_smtp() as smtp:
        set_option(home, "port", str(smtp.port))
        yield


@contextmanager
def answering(
    home: Customer, handler: type[BaseHTTPRequestHandler], *, tls: bool = False
) -> Iterator[None]:
    """A stand-in between the connector and the platform, or in the platform's place."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        bridge_certificate(home.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home.folder / "cert.pem", home.folder / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    scheme = "https" if tls else "http"
    set_option(home, "base_url", f'"{scheme}://127.0.0.1:{server.server_port}"')
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class LoginPage(BaseHTTPRequestHandler):
    """A hotel's network: 200 and a page, whatever is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>Welcome! Please log in.</h1>")

    def log_message(self, *_: object) -> None:
        pass


def an_hour_ahead(home: Customer) -> Planted:
    """The platform's own answers, with its clock an hour ahead of this machine's."""
    (url,) = re.findall(r'^base_url = "(.*)"$', home.profile.read_text(), re.M)

    class Ahead(LoginPage):
        def do_GET(self) -> None:
            real = httpx.get(
                url + self.path, headers={"Authorization": self.headers["Authorization"]}
            )
            self.send_response_only(real.status_code)
            self.send_header(
                "Date", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
            )
            self.send_header("Content-Type", real.headers["content-type"])
            self.end_headers()
            self.wfile.write(real.content)

    return answering(home, Ahead)


def at_once(plant: Callable[[Customer], object]) -> Callable[[Customer], Planted]:
    """A fault that stays as it was planted."""

    def planted(home: Customer) -> Planted:
        plant(home)
        return nullcontext()

    return planted


# What is planted, the check that names it, and a word of its remedy.
FAULTS: dict[str, tuple[Callable[[Customer], Planted], str, str]] = {
    "Bridge down": (
        at_once(lambda home: set_option(home, "port", "9")),
        "bridge port",
        "Start Bridge",
    ),
    "Bridge on another port": (
        bridge_on_another_port,
        "bridge port",
        r"set bridge.imap.port = \d+",
    ),
    "no IMAP server on the port": (
        mail_server_that_is_no_imap,
        "bridge port",
        "IMAP port in Bridge's settings",
    ),
    "wrong connection mode": (
        at_once(lambda home: set_option(home, "tls", '"implicit"')),
        "bridge port",
        'bridge.imap.tls = "starttls"',
    ),
    "certificate changed (trap 27)": (
        at_once(lambda home: set_option(home, "certificate_sha256", f'"{":".join(["00"] * 32)}"')),
        "bridge certificate",
        "compare this fingerprint",
    ),
    "certificate not pinned": (
        at_once(unpin),
        "bridge certificate",
        'bridge.certificate_sha256 = "',
    ),
    "wrong password": (
        at_once(lambda home: store_secret(home, "bridge-password", "wrong")),
        "bridge login",
        "not Proton's own password",
    ),
    "no password": (
        at_once(lambda home: remove_secret(home, "bridge-password")),
        "bridge password",
        "secrets set bridge-password",
    ),
    "no key": (
        at_once(lambda home: remove_secret(home, "api-key")),
        "platform key",
        "secrets set api-key",
    ),
    "keyring locked (trap 43)": (
        lambda home: locked_keyring(home, waits=False),
        "secrets",
        "Unlock it",
    ),
    "keyring waits for its password (trap 43)": (
        lambda home: locked_keyring(home, waits=True),
        "secrets",
        "Unlock it",
    ),
    "no keyring": (
        at_once(lambda home: set_option(home, "store", '"keyring"')),
        "secrets",
        "key file",
    ),
    "the key of the encrypted file is gone": (
        at_once(lambda home: home.key_file.unlink()),
        "secrets",
        "Put it back",
    ),
    "folder gone": (
        at_once(lambda home: set_option(home, "folders", '["Labels/none"]')),
        "folders",
        "INBOX",
    ),
    "wrong port for sending": (
        at_once(allow_sending_on_a_wrong_port),
        "sending",
        "bridge.smtp.port",
    ),
    "platform unreachable": (
        at_once(lambda home: set_option(home, "base_url", '"http://127.0.0.1:9"')),
        "platform",
        "fleetprompt.base_url",
    ),
    "a login page answers (trap 35)": (
        lambda home: answering(home, LoginPage),
        "platform",
        "in a browser",
    ),
    "a stranger's certificate": (
        lambda home: answering(home, LoginPage, tls=True),
        "platform",
        "proxy",
    ),
    "another organization": (
        at_once(lambda home: set_option(home, "organization_id", f'"{NOBODY}"')),
        "key",
        "fleetprompt.organization_id",
    ),
    "another connector's key": (
        at_once(lambda home: set_option(home, "connector_id", f'"{NOBODY}"')),
        "key",
        NOBODY,
    ),
    "clock off by an hour (trap 36)": (an_hour_ahead, "clock", "NTP"),
    "database damaged (trap 32)": (at_once(damage), "database", "backfill --since"),
    "database of a newer version (trap 48)": (at_once(from_the_future), "database", "newest"),
    "queue full (trap 31)": (at_once(fill), "queue", "queue list"),
    "signals refused (trap 34)": (at_once(refuse_a_signal), "queue", "queue retry"),
}


def test_all_is_well_as_a_customer_runs_it(home: Customer) -> None:
    code, told = home.command("doctor")
    assert code == 0, told
    assert {one["state"] for one in told["checks"]} == {"well"}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_names_the_one_cause(home: Customer, name: str) -> None:
    plant, check, remedy = FAULTS[name]
    with plant(home):
        code, told = command(home.profile, "doctor")
    assert code == 1, told
    bad = [one for one in told["checks"] if one["state"] == "bad"]
    assert [one["name"] for one in bad] == [check], told
    assert bad[0]["message"]
    assert re.search(remedy, bad[0]["remedy"]), bad[0]
    assert "\n" not in bad[0]["remedy"]


def test_the_doctor_names_a_revoked_key_trap_34(home: Customer, platform: Served) -> None:
    store_secret(home, "api-key", platform.revoked)
    code, told = command(home.profile, "doctor")
    bad = [one for one in told["checks"] if one["state"] == "bad"]
    assert (code, [one["name"] for one in bad]) == (1, ["platform"]), told
    assert "secrets set api-key" in bad[0]["remedy"]


def test_the_doctor_names_a_full_disk_trap_32(home: Customer) -> None:
    """A file system of 1 MB, full to its last byte, in a mount namespace of the doctor's own."""
    kept = home.folder / "kept"
    home.state.joinpath("secrets.enc").rename(kept)
    script = (
        f"mount -t tmpfs -o size=1m none {home.state} && mv {kept} {home.state}/secrets.enc && "
        f"{{ head -c 2000000 /dev/zero > {home.state}/ballast; }} 2>/dev/null; "
        f"exec {sys.executable} -m fleetprompt_edge doctor --json --profile {home.profile}"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=home.environment(),
    )
    if "unshare failed" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip("this machine gives no mount namespace to its users")
    assert done.returncode == 1, done
    bad = [one for one in json.loads(done.stdout)["checks"] if one["state"] == "bad"]
    assert [one["name"] for one in bad] == ["disk"], bad
    assert "full" in bad[0]["message"]
    assert "Free some disk space" in bad[0]["remedy"]


def test_the_words_are_a_line_for_each_check_and_one_to_mend_it(
    home: Customer, capsys: pytest.CaptureFixture[str]
) -> None:
    home.key_file.unlink()
    assert main(["doctor", "--profile", str(home.profile)]) == 1
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("bad")]
    assert lines[at].startswith("bad     secrets: ")
    assert lines[at + 1].startswith("        → ")
    assert sum(line.startswith("        → ") for line in lines) == 1


def test_bridge_is_found_on_its_next_free_port(server: Dovecot) -> None:
    """Zero-config pairing: Bridge takes the next free port from its first choice."""
    found = bridge_servers.find(None, server.port - 3, bridge_servers.IMAP_GREETING, "IMAP")
    assert found == (server.port, "starttls")
    assert bridge_servers.find(server.tls_port, 1143, bridge_servers.IMAP_GREETING, "IMAP") == (
        server.tls_port,
        "implicit",
    )
