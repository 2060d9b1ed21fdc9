"""A real Dovecot that shows itself as Bridge does: its capabilities, its certificate, its folders."""

import datetime
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.imap.tls import fingerprint
from fleetprompt_edge.profile import Imap
from imapclient import IMAPClient

from tests.ports import free_port

USER = "me@proton.me"
PASSWORD = "canary-bridge-password-5e1f"
# What gluon offers (research/edge.md §2.3).
CAPABILITIES = "IMAP4rev1 IDLE UNSELECT UIDPLUS MOVE ID"

_CONFIGURATION = """
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
protocols = imap
listen = 127.0.0.1
ssl = {ssl}
ssl_cert = <{base}/cert.pem
ssl_key = <{base}/key.pem
disable_plaintext_auth = yes
first_valid_uid = 1
mail_location = maildir:{base}/mail/%u
mail_max_userip_connections = 100
imap_capability = {capabilities}
auth_failure_delay = 0
mail_fsync = never
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
service anvil {{
  chroot =
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    special_use = \\Sent
  }}
  mailbox Drafts {{
    special_use = \\Drafts
  }}
}}
"""


@dataclass
class Dovecot:
    """A running server. ``pin`` is its certificate's fingerprint."""

    base: Path
    port: int
    tls_port: int
    pin: str
    process: subprocess.Popen[bytes]
    owner: pwd.struct_passwd
    dropped: int = 0

    @property
    def imap(self) -> Imap:
        """The profile's options for it."""
        return Imap(port=self.port)

    def session(
        self, headers: Sequence[str] = ("Message-ID", "Subject", "X-Pm-Internal-Id"), **rest: float
    ) -> BridgeSession:
        """The connector's session, logged in."""
        made = BridgeSession(self.imap, self.pin, headers, **rest)
        made.login(USER, PASSWORD)
        return made

    @contextmanager
    def client(self) -> Iterator[IMAPClient]:
        """Another client of the mailbox, that may change it."""
        with IMAPClient("127.0.0.1", self.tls_port, ssl=True, ssl_context=_trusting()) as client:
            client.login(USER, PASSWORD)
            yield client

    def deliver(
        self,
        *mails: bytes,
        folder: str = "INBOX",
        at: datetime.datetime | None = None,
        flags: Sequence[bytes] = (),
    ) -> None:
        """Put mails into a folder."""
        with self.client() as client:
            for mail in mails:
                client.append(folder, mail, flags, at)

    def drop(
        self, mails: Iterable[bytes], folder: str = "INBOX", at: datetime.datetime | None = None
    ) -> None:
        """Put many mails into a folder at once, in their order, as a local delivery would."""
        home = self.base / "mail" / USER
        place = home if folder == "INBOX" else home / f".{folder.replace('/', '.')}"
        for mail in mails:
            self.dropped += 1
            name = f"{1_700_000_000 + self.dropped}.M{self.dropped}P1.dropped"
            file = place / "tmp" / name
            file.write_bytes(mail)
            os.chown(file, self.owner.pw_uid, self.owner.pw_gid)
            if at is not None:
                os.utime(file, (at.timestamp(), at.timestamp()))
            # Whole, or not there.
            file.rename(place / "new" / name)

    def doveadm(self, *arguments: str) -> str:
        """Run ``doveadm``."""
        done = subprocess.run(
            ["doveadm", "-c", str(self.base / "dovecot.conf"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def renumber(self, folder: str = "INBOX") -> None:
        """Give a folder another UIDVALIDITY, as Bridge does after ``repair``."""
        now = int(
            self.doveadm(
                "-f", "flow", "mailbox", "status", "-u", USER, "uidvalidity", folder
            ).rpartition("=")[2]
        )
        self.doveadm("mailbox", "update", "-u", USER, "--uid-validity", str(now + 1), folder)

    def start(self) -> None:
        """Run it again after ``stop`` or ``kill``."""
        self.process = _process(self.base)
        _wait_until_it_listens(self)

    def kill(self) -> None:
        """SIGKILL, to all of its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def kick(self) -> None:
        """End every connection, as a restart of Bridge does."""
        self.doveadm("kick", USER)


def mail(number: int | str, text: str = "Hello", **headers: str) -> bytes:
    """A mail as Bridge shows it, with Proton's id in it."""
    fields = {
        "From": "Ada <ada@example.org>",
        "To": USER,
        "Subject": f"Mail {number}",
        "Date": "Tue, 06 Jan 2026 09:00:00 +0100",
        "Message-ID": f"<m{number}@example.org>",
        "X-Pm-Internal-Id": f"internal-{number}",
        "Content-Type": "text/plain; charset=utf-8",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"{head}\r\n{text}\r\n".encode()


@contextmanager
def dovecot(*, encrypted: str = "required", capabilities: str = CAPABILITIES) -> Iterator[Dovecot]:
    """A server with an empty mailbox, until the block ends."""
    # Not below pytest's own folder, which only its owner may enter: Dovecot's processes are others.
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o755)
        pin = bridge_certificate(base)
        root = os.geteuid() == 0
        me = pwd.getpwuid(os.geteuid())
        owner = pwd.getpwnam("nobody") if root else me
        (base / "mail").mkdir()
        os.chown(base / "mail", owner.pw_uid, owner.pw_gid)
        port, tls_port = free_port(), free_port()
        (base / "dovecot.conf").write_text(
            _CONFIGURATION.format(
                base=base,
                internal="dovecot" if root else me.pw_name,
                internal_group="dovecot" if root else me.pw_gid,
                login="dovenull" if root else me.pw_name,
                ssl=encrypted,
                capabilities=capabilities,
                password=PASSWORD,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                port=port,
                tls_port=tls_port if encrypted != "no" else 0,
            )
        )
        server = Dovecot(base, port, tls_port, pin, _process(base), owner)
        try:
            _wait_until_it_listens(server)
            if encrypted != "no":
                with server.client() as client:
                    for name in ("Sent", "Drafts"):
                        client.create_folder(name)
            yield server
        finally:
            server.stop()


def _process(base: Path) -> subprocess.Popen[bytes]:
    program = shutil.which(
        "dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    assert program, "Dovecot is needed: apt-get install dovecot-imapd"
    settings = str(base / "dovecot.conf")
    return subprocess.Popen([program, "-F", "-c", settings], start_new_session=True)


def bridge_certificate(base: Path) -> str:
    """A certificate as Bridge makes it, for 127.0.0.1 alone, as files; its fingerprint."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7300))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (base / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (base / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return fingerprint(made.public_bytes(serialization.Encoding.DER))


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _wait_until_it_listens(server: Dovecot) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        log = server.base / "log"
        assert server.process.poll() is None, log.read_text() if log.exists() else "no log"
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("Dovecot does not listen")
