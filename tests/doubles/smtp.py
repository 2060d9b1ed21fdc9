"""A mail server (aiosmtpd) whose answers a test chooses, step by step."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.ports import free_port

USER, PASSWORD = "digest", "canary-pw-51c9"


@dataclass
class Mail:
    """One message as it was taken over, with its envelope."""

    sender: str
    recipients: list[str]
    message: EmailMessage


@dataclass
class MailServer:
    """The stand-in's state. ``refusals`` maps a step or a recipient to the answer that is given."""

    host: str = "127.0.0.1"
    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    drop: str = ""
    sessions: int = 0
    encrypted: list[bool] = field(default_factory=list)
    before_data: Any = None

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        self.sessions += 1
        session.host_name = hostname
        if "EHLO" in self.refusals:
            return [self.refusals["EHLO"]]
        return responses

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.drop == "MAIL":
            return self._hang_up(server)
        if "MAIL" in self.refusals:
            return self.refusals["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.before_data is not None:
            self.before_data()
        refused = self.refusals.get(address) or self.refusals.get("RCPT")
        if refused:
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.drop == "DATA before":
            return self._hang_up(server)
        if "DATA" in self.refusals:
            return self.refusals["DATA"]
        content = envelope.content
        assert isinstance(content, bytes)
        message = BytesParser(policy=default).parsebytes(content)
        assert isinstance(message, EmailMessage)
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        self.mails.append(Mail(str(envelope.mail_from), list(envelope.rcpt_tos), message))
        return self._hang_up(server) if self.drop == "DATA after" else "250 OK queued"

    @staticmethod
    def _hang_up(server: SMTP) -> str:
        assert isinstance(server.transport, asyncio.Transport)
        server.transport.abort()
        return "421 gone"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        if "AUTH" in self.refusals:
            return AuthResult(success=False, handled=False, message=self.refusals["AUTH"])
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=good)


@contextmanager
def running_smtp(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    login: bool = False,
    international: bool = True,
) -> Iterator[MailServer]:
    """A stand-in on a free port of 127.0.0.1, in a thread of its own."""
    state = MailServer(port=free_port())
    controller = Controller(
        state,
        hostname="127.0.0.1",
        port=state.port,
        ssl_context=tls,
        server_hostname="mail.example.org",
        tls_context=starttls,
        authenticator=state.authenticate if login else None,
        auth_require_tls=False,
        enable_SMTPUTF8=international,
        decode_data=False,
    )
    controller.start()
    try:
        yield state
    finally:
        controller.stop()
