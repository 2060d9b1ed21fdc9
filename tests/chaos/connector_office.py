"""Bridge's SMTP side: takes mail over, shows it among the sent mail, and breaks off as Bridge does."""

import asyncio
import random
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesHeaderParser
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.edge.dovecot import PASSWORD, USER, Dovecot
from tests.ports import free_port

# What happens to a mail, and how often: nearly all goes well.
_ENDS = {
    "taken": 86,
    "taken, answer lost": 6,
    "taken, shown late": 4,
    "refused for now": 3,
    "lost": 1,
}
_LATE = (1.0, 8.0)  # seconds


class Office:
    """``taken`` counts each Message-ID that was sent to the world. ``hurry``: how many times as fast what is
    late comes."""

    def __init__(self, bridge: Dovecot, seed: int, hurry: float) -> None:
        self.port = free_port()
        self.taken: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._bridge = bridge
        self._hurry = hurry
        self._chance = random.Random(seed)
        self._turn = threading.Lock()

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        end = self._chance.choices(list(_ENDS), list(_ENDS.values()))[0]
        self.ends[end] += 1
        if end == "refused for now":
            return "554 5.0.0 too many failed requests"
        if end != "lost":
            content = envelope.content
            assert isinstance(content, bytes)
            self.taken[str(BytesHeaderParser().parsebytes(content)["Message-ID"])] += 1
            if end == "taken, shown late":
                loop = asyncio.get_running_loop()
                loop.call_later(self._chance.uniform(*_LATE) / self._hurry, self._show, content)
            else:
                self._show(content)
        if end in ("lost", "taken, answer lost"):
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 OK"

    def _show(self, content: bytes) -> None:
        with self._turn:
            self._bridge.drop([content], "Sent")

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=good)


@contextmanager
def office(bridge: Dovecot, seed: int, hurry: float) -> Iterator[Office]:
    """A server until the block ends."""
    made = Office(bridge, seed, hurry)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bridge.base / "cert.pem", bridge.base / "key.pem")
    controller = Controller(
        made,
        hostname="127.0.0.1",
        port=made.port,
        tls_context=context,
        authenticator=made.authenticate,
        auth_require_tls=True,
        require_starttls=True,
    )
    controller.start()
    try:
        yield made
    finally:
        controller.stop()
