"""Google's token endpoint and Gmail's drafts, as far as a service account with delegation sees them.

Written from research/mattermost_digest.md, "Gmail via domain-wide delegation". Assertions are verified
with the account's public key. ``faults`` names what goes wrong with the next call of an operation.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.auth import jwt

ACCOUNT = "digest@acme-project.iam.gserviceaccount.com"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_PRIVATE = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
_PUBLIC = _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SCOPE = "https://www.googleapis.com/auth/gmail.compose"

# (status, body, content type) of Google's error answers, each with a canary that must be shown nowhere.
CANARY = "canary-a8f3"


def api_error(code: int, reason: str) -> tuple[int, Any]:
    """An error of the interface as Google forms it."""
    message = f"{reason} for ya29.{CANARY}"
    detail = {"domain": "global", "reason": reason, "message": message}
    return code, {"error": {"code": code, "message": message, "errors": [detail]}}


def token_error(code: int, error: str) -> tuple[int, Any]:
    """An error of the token endpoint."""
    return code, {"error": error, "error_description": f"Client is unauthorized {CANARY}"}


@dataclass
class Fault:
    """What happens to a call: ``answer`` instead of it, or ``lose`` the answer before or after it."""

    answer: tuple[int, Any] | None = None
    lose: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    forever: bool = False


@dataclass
class Gmail:
    """The stand-in's state, to be read and changed by a test."""

    url: str = ""
    users: set[str] = field(default_factory=set)
    drafts: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sent: list[tuple[str, EmailMessage]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    subjects: list[str | None] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    before_send: Any = None
    _tokens: dict[str, str | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sealed(self) -> str:
        """The connection's secret: address and key file."""
        key = {
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key_id": "k1",
            "private_key": _PRIVATE,
            "token_uri": f"{self.url}/token",
        }
        return json.dumps({"url": self.url, "token": json.dumps(key)})

    def token(self, form: dict[str, list[str]]) -> tuple[int, Any]:
        claims = jwt.decode(  # type: ignore[no-untyped-call]
            form["assertion"][0], certs=_PUBLIC, audience=f"{self.url}/token"
        )
        assert (claims["iss"], claims["scope"]) == (ACCOUNT, SCOPE)
        subject = claims.get("sub")
        self.subjects.append(subject)
        if subject is not None and subject not in self.users:
            return token_error(400, "invalid_grant")
        token = f"ya29.{uuid.uuid4().hex}"
        self._tokens[token] = subject
        return 200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def drafts_call(
        self, method: str, path: str, query: str, auth: str, body: Any
    ) -> tuple[int, Any]:
        user = self._tokens.get(auth.removeprefix("Bearer "))
        if user is None:
            return api_error(401, "authError")
        if (method, path) == ("POST", ""):
            raw = base64.urlsafe_b64decode(body["message"]["raw"])
            draft = f"r{uuid.uuid4().int % 10**18}"
            self.drafts[draft] = (user, raw)
            return 200, {"id": draft, "message": {"id": uuid.uuid4().hex[:16]}}
        if (method, path) == ("POST", "/send"):
            with self._lock:
                owner, raw = self.drafts.get(body["id"], ("", b""))
                if owner != user:
                    return api_error(404, "notFound")
                del self.drafts[body["id"]]
                message = BytesParser(policy=default).parsebytes(raw)
                assert isinstance(message, EmailMessage)
                self.sent.append((user, message))
            return 200, {"id": uuid.uuid4().hex[:16], "threadId": "t", "labelIds": ["SENT"]}
        if (method, path) == ("GET", ""):
            wanted = parse_qs(query).get("q", [""])[0].strip('"').encode()
            mine = [d for d, (owner, raw) in self.drafts.items() if owner == user and wanted in raw]
            return 200, {"drafts": [{"id": one} for one in mine]} if mine else {}
        draft = path.removeprefix("/")
        if self.drafts.get(draft, ("", b""))[0] != user:
            return api_error(404, "notFound")
        if method == "DELETE":
            del self.drafts[draft]
            return 204, None
        if method == "PUT":
            self.drafts[draft] = (user, base64.urlsafe_b64decode(body["message"]["raw"]))
        return 200, {"id": draft, "message": {"id": "m1", "labelIds": ["DRAFT"]}}


@contextmanager
def running_gmail() -> Iterator[Gmail]:
    """A stand-in on a free port of 127.0.0.1."""
    state = Gmail()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            """Keep quiet."""

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            content = self.rfile.read(length)
            if len(content) < length:
                # Whoever asked has died in the middle of asking.
                self.close_connection = True
                return
            split = urlsplit(self.path)
            path = split.path.removeprefix("/gmail/v1/users/me/drafts")
            operation = _operation(self.command, split.path, path)
            state.calls.append(operation)
            fault = state.faults.get(operation, Fault())
            if not fault.forever:
                state.faults.pop(operation, None)
            if operation == "send" and state.before_send is not None:
                state.before_send()
            if fault.lose == "before":
                self.close_connection = True
                return
            if fault.answer is not None:
                status, body = fault.answer
            elif operation == "token":
                status, body = state.token(parse_qs(content.decode()))
            else:
                auth = self.headers.get("Authorization", "")
                decoded = json.loads(content) if content else None
                status, body = state.drafts_call(self.command, path, split.query, auth, decoded)
            if fault.lose == "after":
                self.close_connection = True
                return
            if fault.lose == "slow":
                time.sleep(0.5)
            page = isinstance(body, str)
            raw = b"" if body is None else body.encode() if page else json.dumps(body).encode()
            self.send_response(status)
            kind = "text/html" if page else "application/json; charset=UTF-8"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the base class's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _operation(method: str, whole: str, path: str) -> str:
    if whole == "/token":
        return "token"
    if path == "":
        return "create" if method == "POST" else "list"
    if path == "/send":
        return "send"
    return {"DELETE": "withdraw", "PUT": "rewrite"}.get(method, "look")
