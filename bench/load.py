"""A small closed-loop HTTP load generator: N keep-alive connections, each sends when it was answered.

Runs as a process of its own (``python -m bench.load``), so that it shares no interpreter with the
server. It writes requests and reads lengths by hand, because on two cores a full HTTP client costs more
than the server under test.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any


@dataclass(frozen=True)
class Load:
    """What to send: ``batch`` signals a request, for ``seconds``, over ``clients`` connections."""

    port: int
    path: str
    token: str
    clients: int = 32
    batch: int = 1
    seconds: float = 6.0
    warm_up: float = 1.5
    run: str = "r"


@dataclass(frozen=True)
class Measured:
    """What came back: requests a second, signals a second, latency in milliseconds."""

    requests_per_second: float
    signals_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


def signal(key: str) -> dict[str, Any]:
    """A signal of about 950 bytes, as the edge connector sends them."""
    return {
        "type": "email.inbound.received",
        "source": "edge:proton_mail",
        "occurred_at": "2026-01-06T09:00:00Z",
        "subject_type": "email",
        "subject_id": key,
        "dedupe_key": f"email_in:acme:c0ffee:INBOX:{key}",
        "data": {
            "from": "ops@example.org",
            "to": ["team@example.org"],
            "subject": "Quarterly figures",
            "snippet": "All figures are in the attachment. " * 5,
            "headers": {"list-id": "figures.example.org", "x-mailer": "none"},
            "attachments": [
                {"name": f"figures-{n}.pdf", "bytes": 12345, "type": "application/pdf"}
                for n in range(4)
            ],
        },
        "metadata": {
            "schema_version": 1,
            "correlation_id": f"mail:{key}",
            "connector_id": "c0ffee",
            "account_id": "team@example.org",
        },
    }


async def _client(load: Load, number: int, ends: float, starts: float, seen: list[float]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {load.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    errors = 0
    # The body is made once and only its keys change, so that the generator stays cheap.
    mark = "KEYKEYKEYKEYKEYKEYKEYKEY"
    template = json.dumps(signal(mark))
    for sequence in count():
        keys = (
            f"{load.run}{number:04}{sequence:08}{item:04}".ljust(24, "0")
            for item in range(load.batch)
        )
        bodies = [template.replace(mark, key) for key in keys]
        body = (bodies[0] if load.batch == 1 else f"[{','.join(bodies)}]").encode()
        sent = time.perf_counter()
        if sent > ends:
            break
        writer.write(head + str(len(body)).encode() + b"\r\n\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        now = time.perf_counter()
        if sent >= starts:
            if answer[9:10] == b"2":
                seen.append(now - sent)
            else:
                errors += 1
    writer.close()
    return errors


async def _drive(load: Load) -> Measured:
    seen: list[float] = []
    starts = time.perf_counter() + load.warm_up
    ends = starts + load.seconds
    errors = sum(
        await asyncio.gather(
            *(_client(load, number, ends, starts, seen) for number in range(load.clients))
        )
    )
    seen.sort()
    rate = len(seen) / load.seconds
    return Measured(
        requests_per_second=rate,
        signals_per_second=rate * load.batch,
        p50_ms=seen[len(seen) // 2] * 1000 if seen else float("nan"),
        p99_ms=seen[len(seen) * 99 // 100] * 1000 if seen else float("nan"),
        errors=errors,
    )


def drive(load: Load) -> Measured:
    """Run a load in its own process; raises if any answer was no 2xx."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", json.dumps(asdict(load))],
        check=True,
        capture_output=True,
        text=True,
    )
    measured = Measured(**json.loads(done.stdout))
    if measured.errors:
        raise RuntimeError(f"{measured.errors} answers of {load.path} were no 2xx")
    return measured


if __name__ == "__main__":
    import uvloop

    print(json.dumps(asdict(uvloop.run(_drive(Load(**json.loads(sys.argv[1])))))))
