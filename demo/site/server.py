"""Serves the shop's two pages on a port of their own, so that the chat is on another origin as in life."""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PAGES = Path(__file__).parent / "pages"
_NAMES = {"/": "index.html", "/delivery": "delivery.html"}
_SNIPPET = "<!-- chat -->"


def page(path: str, api_url: str, snippet: str) -> tuple[str, str] | None:
    """A page with the snippet in it and the policy that it comes under; None for what is none."""
    if path not in _NAMES:
        return None
    # A new one for each answer, so that no script can be put into the page that knows it.
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; connect-src {api_url}; style-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    text = (_PAGES / _NAMES[path]).read_text()
    return text.replace(_SNIPPET, snippet.replace("<script ", f'<script nonce="{nonce}" ')), policy


@contextlib.contextmanager
def serving(port: int, api_url: str, snippet: str) -> Iterator[str]:
    """Serve until the block ends; gives the site's address."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = page(path, api_url, snippet)
            if found is not None:
                self._send(200, "text/html; charset=utf-8", found[0], found[1])
            elif path == "/style.css":
                self._send(200, "text/css; charset=utf-8", (_PAGES / "style.css").read_text())
            else:
                self._send(404, "text/plain; charset=utf-8", "There is no such page.\n")

        def _send(
            self, status: int, kind: str, text: str, policy: str = "default-src 'none'"
        ) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", policy)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002
            """Nobody reads the log of a sample page."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="demo site", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
