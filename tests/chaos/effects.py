"""Something outside that takes an idempotency key: it applies each key once and forgets nothing.

Some answers are never sent although the effect was applied, which is what makes a key needed.
"""

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Effects:
    """``asked`` counts requests by key, ``applied`` the effects that took place."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def running_effects(seed: int) -> Iterator[Effects]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    effects, chance = Effects(), random.Random(seed)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            key = self.headers["Idempotency-Key"]
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            with effects.lock:
                effects.asked[key] += 1
                if effects.asked[key] == 1:
                    effects.applied[key] += 1
                silent = chance.random() < 0.1
                effects.unanswered += silent
            self.close_connection = True
            if not silent:
                with contextlib.suppress(OSError):  # the one who asked may have been killed
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Killed clients are what this is for."""

    with Server(("127.0.0.1", 0), Handler) as server:
        effects.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield effects
        finally:
            server.shutdown()
            thread.join()
