"""An OpenAI-compatible endpoint, as far as a chat completion sees one, with every way it goes wrong.

Written from the API reference of chat completions. What it answers is ``answer``; what it was asked
stands in ``questions``, so that a test can tell what left the platform.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-canary-4be1f0"
MODEL = "stand-in-1"
# Stands in every answer that is not a text, and must be shown nowhere.
CANARY = "canary-9d02"


@dataclass
class Answer:
    """What is sent back: ``body`` whole, or cut, dripped byte by byte, or never.

    ``how`` is ``whole``, ``cut`` (half of it, then the connection ends), ``drip`` (a byte at a time,
    without end), ``silent`` (nothing until the stand-in stops) or ``dropped`` (the connection ends).
    """

    status: int = 200
    body: bytes = b""
    how: str = "whole"
    headers: dict[str, str] = field(default_factory=dict)


def saying(
    text: str | None, *, tokens: tuple[int, int] | None = (40, 12), finish: str | None = "stop"
) -> Answer:
    """A completion with this text; ``tokens`` None leaves the usage out."""
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if tokens is not None:
        body["usage"] = {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        }
    return Answer(body=json.dumps(body).encode())


def failing(status: int, **headers: str) -> Answer:
    """An error in the API's form."""
    error = {"message": f"Incorrect key {KEY} {CANARY}", "type": "error", "code": None}
    return Answer(status, json.dumps({"error": error}).encode(), headers=headers)


@dataclass
class Model:
    """The stand-in's state, to be read and changed by a test."""

    url: str = ""
    answer: Answer | Callable[[dict[str, Any]], Answer] = field(
        default_factory=lambda: saying("A quiet day.")
    )
    questions: list[dict[str, Any]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def answer_to(self, path: str, key: str | None, question: dict[str, Any]) -> Answer:
        if path != "/v1/chat/completions":
            return failing(404)
        if key != f"Bearer {KEY}":
            return failing(401)
        self.questions.append(question)
        return self.answer(question) if callable(self.answer) else self.answer


@contextmanager
def running_model() -> Iterator[Model]:
    """A stand-in on a free port of 127.0.0.1; its ``url`` ends with ``/v1``."""
    state = Model()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            """Keep quiet."""

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            answer = state.answer_to(
                self.path, self.headers.get("Authorization"), json.loads(content)
            )
            self.close_connection = True
            if answer.how == "silent":
                state.stopping.wait()
            if answer.how in ("silent", "dropped"):
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.send(answer)
            except ConnectionError:
                # Whoever has read enough hangs up.
                return

        def send(self, answer: Answer) -> None:
            if answer.how == "drip":
                for byte in answer.body:
                    if state.stopping.wait(0.02):
                        return
                    self.wfile.write(bytes([byte]))
                return
            end = len(answer.body) // 2 if answer.how == "cut" else len(answer.body)
            self.wfile.write(answer.body[:end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
