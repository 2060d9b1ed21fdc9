"""Serving the page: on 127.0.0.1, to who has its address, for as long as it was asked for.

The address holds 32 random bytes, and the server answers to no other name than its own, so that neither
another program's guess nor a web page that points its name at 127.0.0.1 sees anything. Nothing can be
changed by it.
"""

import hmac
import secrets
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fleetprompt_edge.condition import condition
from fleetprompt_edge.doctor.examine import examine
from fleetprompt_edge.errors import EdgeError
from fleetprompt_edge.page.document import checks_page, failure_page, status_page
from fleetprompt_edge.profile import Profile

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Page:
    """A server that is listening; ``url`` is its whole secret."""

    def __init__(self, profile: Profile, folder: Path) -> None:
        self._token = secrets.token_urlsafe(32)
        self._examining = threading.Lock()
        self._profile = profile
        self._folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/{self._token}/"

    def serve(self) -> None:
        """Answer until ``close`` is called."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End ``serve``; from another thread."""
        self._server.shutdown()

    def close(self) -> None:
        """Stop listening."""
        self._server.server_close()

    def answer(self, host: str, path: str) -> tuple[int, str]:
        """Status and document for a request; 404 for all that is not the page's own."""
        token, _, rest = path.lstrip("/").partition("/")
        known = hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())
        if host != self.host or not known or rest not in ("", "checks"):
            return 404, failure_page("There is no such page.", "")
        try:
            if rest == "checks":
                with self._examining:
                    return 200, checks_page(examine(self._profile, self._folder))
            return 200, status_page(condition(self._profile, self._folder), self._profile)
        except EdgeError as error:
            return 500, failure_page(error.message, error.remedy)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            server_version = "fleetprompt-edge"
            sys_version = ""
            timeout = 30

            def do_GET(self) -> None:
                status, document = page.answer(self.headers.get("Host", ""), self.path)
                content = document.encode()
                self.send_response(status)
                for name, value in _HEADERS.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """The address is a secret; nothing of a request is logged."""

        return Handler


def show(profile: Profile, folder: Path, *, minutes: int, say: Callable[[str], None]) -> int:
    """Serve the page until the time is over, or somebody ends it; 0."""
    page = Page(profile, folder)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    server = threading.Thread(target=page.serve, name="page", daemon=True)
    server.start()
    try:
        say(page.url)
        ending.wait(minutes * 60)
    finally:
        page.stop()
        server.join()
        page.close()
    return 0
