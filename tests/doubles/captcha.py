"""A CAPTCHA vendor's ``siteverify``, from hCaptcha's and Turnstile's references: form in, JSON out, once."""

import json
from asyncio import StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from tests.doubles.http_server import Answer, HttpServer, Request

SECRET = "0x4AAA-canary-c41e"


class CaptchaVendor(HttpServer):
    """``answers`` are those that pages got and nobody has checked; ``instead`` replaces every reply."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: set[str] = set()
        self.instead: Answer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/siteverify"

    async def answer(self, request: Request, writer: StreamWriter) -> Answer:
        if self.instead is not None:
            return self.instead
        given = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return self._told("bad-request")
        if given.get("secret") != SECRET:
            return self._told("invalid-input-secret")
        if given.get("response") not in self.answers:
            return self._told("timeout-or-duplicate")
        self.answers.remove(given["response"])
        return self._told()

    @staticmethod
    def _told(*codes: str) -> Answer:
        body = {"success": not codes, "error-codes": codes}
        return Answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


@contextmanager
def running_vendor() -> Iterator[CaptchaVendor]:
    """A stand-in on a free port of 127.0.0.1."""
    vendor = CaptchaVendor()
    vendor.start()
    try:
        yield vendor
    finally:
        vendor.stop()
