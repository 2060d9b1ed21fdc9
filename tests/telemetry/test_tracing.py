"""Spans: one correlation, one trace, and nothing in them that nobody may read."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import DirectiveParams, DirectiveType
from fleetprompt.ids import new_id
from fleetprompt.outbound.http import ConnectFailedError, OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.telemetry import tracing
from fleetprompt.telemetry.exporting import tracer_of
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import Tenant
from tests.api.serving import serving
from tests.api.support import DIGEST, bearer, calling
from tests.telemetry.receiver import collecting

CANARY = "canary-9c1f"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What is made of spans, from now on, in this process."""
    exporter = InMemorySpanExporter()
    tracing.use(tracer_of("test", SimpleSpanProcessor(exporter)))
    yield exporter
    tracing.use(None)


@pytest.fixture
async def traced(spans: InMemorySpanExporter, settings: Settings) -> AsyncIterator[FastAPI]:
    """An application that was started with tracing on."""
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def token(database: Database, settings: Settings, tenant: Tenant) -> str:
    """An owner's key."""
    async with database.platform() as session:
        return (await issue_key(session, settings, tenant, KeyRequest("user", "t", role="owner")))[
            1
        ]


def signal(correlation_id: str | None, **data: Any) -> dict[str, Any]:
    return {
        "type": "test.traced",
        "source": "test",
        "occurred_at": "2026-03-01T10:00:00Z",
        "data": data,
        "metadata": {} if correlation_id is None else {"correlation_id": correlation_id},
    }


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [one for one in spans.get_finished_spans() if one.name == name]


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.trace_id
    return found


def span_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.span_id
    return found


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


class Params(DirectiveParams):
    """Of the test's directive."""

    word: str = ""


@asynccontextmanager
async def answering(status: str) -> AsyncIterator[int]:
    """A server that says the same to everybody; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def worked(
    database: Database, settings: Settings, tenant: Tenant, handler: Any, **asked: Any
) -> None:
    """Ask for one directive whose handler this is, and work it off."""
    types = {"test.traced": DirectiveType("test.traced", "A test's.", Params, handler)}
    async with database.platform() as session:
        await session.execute(text("DELETE FROM fleetprompt.directive_queue"))
    async with database.tenant(tenant.schema) as session:
        await request_directive(
            session,
            tenant,
            "test.traced",
            {"word": CANARY},
            idempotency_key=str(new_id()),
            actor=Actor("platform", "platform"),
            types=types,
            **asked,
        )
    async with DirectiveRunner(database, settings, owner="dagster:1", types=types) as runner:
        await runner.drain()


def test_a_correlation_id_gives_its_trace_whoever_asks() -> None:
    """The rule that operators may use themselves: the first 16 bytes of the SHA-256."""
    assert f"{tracing.trace_id_of('ticket-4711'):032x}" == "d4f8096d8f887dd928bfff2b6d3e6a55"
    assert tracing.trace_id_of("a") == tracing.trace_id_of("a") != tracing.trace_id_of("b")


async def test_a_signal_goes_into_the_trace_of_its_correlation_with_its_request(
    traced: FastAPI, spans: InMemorySpanExporter, token: str, tenant: Tenant
) -> None:
    async with calling(traced, token) as client:
        stored = (await client.post("/api/v1/signals", json=signal("ticket-1"))).json()
    (request,) = named(spans, "POST /api/v1/signals")
    (created,) = named(spans, "create test.traced")
    (flush,) = named(spans, "flush signals")
    assert trace_of(request) == trace_of(created) == tracing.trace_id_of("ticket-1")
    assert created.parent is not None
    assert created.parent.span_id == span_of(request)
    assert [link.context.span_id for link in flush.links] == [span_of(created)]
    assert told(created)["messaging.message.id"] == stored["id"]
    assert told(created)["messaging.message.conversation_id"] == "ticket-1"
    attributes = told(request)
    assert attributes["http.route"] == "/api/v1/signals"
    assert attributes["http.response.status_code"] == 201
    assert attributes["fleetprompt.tenant"] == tenant.slug


async def test_signals_of_several_correlations_in_one_request_go_each_into_its_own_trace(
    traced: FastAPI, spans: InMemorySpanExporter, token: str
) -> None:
    async with calling(traced, token) as client:
        answer = await client.post(
            "/api/v1/signals", json=[signal("a-1"), signal("b-1"), signal(None)]
        )
    (request,) = named(spans, "POST /api/v1/signals")
    alone = answer.json()["items"][2]["id"]
    traces = [trace_of(one) for one in named(spans, "create test.traced")]
    assert traces == [tracing.trace_id_of(one) for one in ("a-1", "b-1", alone)]
    assert trace_of(request) not in traces
    for created in named(spans, "create test.traced"):
        assert [link.context.span_id for link in created.links] == [span_of(request)]


async def test_a_callers_trace_is_kept(
    traced: FastAPI, spans: InMemorySpanExporter, token: str
) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with calling(traced, token) as client:
        await client.post("/api/v1/signals", json=signal("t-2"), headers={"traceparent": given})
        await client.get("/api/v1/me", headers={"traceparent": "no-such-thing"})
    (request,) = named(spans, "POST /api/v1/signals")
    assert f"{trace_of(request):032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    (created,) = named(spans, "create test.traced")
    assert trace_of(created) == tracing.trace_id_of("t-2")
    assert [link.context.span_id for link in created.links] == [span_of(request)]
    assert named(spans, "GET /api/v1/me")[0].parent is None


async def test_an_attempt_its_handler_and_what_that_sends_stand_below_one_another(
    database: Database, settings: Settings, tenant: Tenant, spans: InMemorySpanExporter
) -> None:
    cause = new_id()

    async def post(context: HandlerContext, params: Params) -> dict[str, Any]:
        async with answering("200 OK") as port:
            await context.http.request("POST", f"http://127.0.0.1:{port}/hooks/{CANARY}")
        return {"kept": CANARY}

    await worked(
        database, settings, tenant, post, correlation_id="ticket-3", causation_id=str(cause)
    )
    (attempt,) = named(spans, "attempt test.traced")
    (handler,) = named(spans, "handle test.traced")
    (sent,) = named(spans, "POST")
    (drain,) = named(spans, "drain directives")
    assert {trace_of(one) for one in (attempt, handler, sent)} == {tracing.trace_id_of("ticket-3")}
    assert handler.parent is not None
    assert handler.parent.span_id == span_of(attempt)
    assert sent.parent is not None
    assert sent.parent.span_id == span_of(handler)
    assert [link.context.span_id for link in attempt.links] == [tracing.span_id_of(cause)]
    assert told(attempt)["fleetprompt.directive.state"] == "succeeded"
    assert told(attempt)["fleetprompt.tenant"] == tenant.slug
    assert told(sent)["server.address"] == "127.0.0.1"
    assert told(sent)["http.response.status_code"] == 200
    assert told(drain)["fleetprompt.worker"] == "dagster:1"
    assert attempt.start_time is not None
    assert handler.start_time is not None
    assert attempt.start_time <= handler.start_time
    assert CANARY not in "".join(one.to_json() for one in spans.get_finished_spans())


async def test_each_attempt_is_a_span_and_failures_tell_their_class_alone(
    database: Database, settings: Settings, tenant: Tenant, spans: InMemorySpanExporter
) -> None:
    async def refuse(context: HandlerContext, params: Params) -> dict[str, Any]:
        raise DirectiveFailed("auth", f"the password {CANARY} is wrong")

    await worked(database, settings, tenant, refuse, correlation_id="ticket-4")
    (attempt,) = named(spans, "attempt test.traced")
    assert told(attempt)["error.type"] == "auth"
    assert not attempt.status.is_ok
    (handler,) = named(spans, "handle test.traced")
    assert told(handler)["error.type"] == "DirectiveFailed"
    assert handler.events == ()
    assert CANARY not in "".join(one.to_json() for one in spans.get_finished_spans())


async def test_a_request_that_does_not_arrive_is_a_span_too(
    settings: Settings, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(ConnectFailedError):
        await OutboundClient(settings).request("POST", f"http://127.0.0.1:9/{CANARY}")
    (sent,) = named(spans, "POST")
    assert told(sent)["error.type"] == "ConnectFailedError"
    assert CANARY not in sent.to_json()


async def test_what_producers_and_callers_send_is_in_no_span(
    traced: FastAPI, spans: InMemorySpanExporter, token: str
) -> None:
    async with calling(traced, token) as client:
        sent = signal("t-5", secret_word=CANARY)
        await client.post(
            "/api/v1/signals", json={**sent, "subject_id": CANARY, "subject_type": "x"}
        )
        await client.get(f"/api/v1/signals?type={CANARY}", headers={"x-other": CANARY})
        await client.get(f"/{CANARY}")
        await client.post("/api/v1/signals", content=CANARY.encode())
    content = "".join(one.to_json() for one in spans.get_finished_spans())
    assert CANARY not in content
    assert token not in content


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported(repository: Path) -> None:
    """Neither in the code location that each run imports, nor in the API."""
    script = (
        "import sys, fleetprompt_dagster.definitions, fleetprompt.directives.runner\n"
        "import fleetprompt.telemetry.tracing as tracing\n"
        "tracing.start('x')\n"
        "with tracing.span('x') as made: assert made is None\n"
        "heavy = [name for name in sys.modules if name.startswith(('opentelemetry.sdk',"
        " 'opentelemetry.exporter', 'prometheus_client', 'fleetprompt.telemetry.exporting'))]\n"
        "assert not heavy, heavy\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean, cwd=repository, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


async def test_one_correlation_is_one_trace_over_api_and_worker(
    settings: Settings, database: Database, tenant: Tenant, token: str, tmp_path: Path,
    repository: Path,
) -> None:  # fmt: skip
    """Three processes and a collector: what each exports over OTLP fits together by ids alone."""
    async with database.platform() as session:
        await session.execute(text("DELETE FROM fleetprompt.directive_queue"))
    with collecting() as collector:
        exporting = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector-key={CANARY}",
        }
        with serving(settings, tmp_path, **exporting) as server:
            async with httpx.AsyncClient(
                base_url=server.url, headers=bearer(token), timeout=30
            ) as client:
                asked = await client.post(f"/api/v1/packages/{DIGEST}/install")
                assert asked.status_code == 202, asked.text
                path = asked.json()["links"]["directive"]
                correlation_id = (await client.get(path)).json()["correlation_id"]
                await client.post("/api/v1/signals", json=signal(correlation_id))
            assert settings.database_url is not None
            assert settings.master_key is not None
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.telemetry.worker", cwd=repository,
                env={
                    **os.environ, **exporting,
                    "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
                    "FLEETPROMPT_DATABASE_URL": settings.database_url.get_secret_value(),
                    "FLEETPROMPT_MASTER_KEY": settings.master_key.get_secret_value(),
                    "FLEETPROMPT_MASTER_KEY_SOURCE": "env",
                },
            )  # fmt: skip
            assert await worker.wait() == 0
            server.terminate()
    trace = tracing.trace_id_of(correlation_id).to_bytes(16)
    whole = [one for one in collector.spans if one.trace_id == trace]
    assert {(one.service, one.name) for one in whole} >= {
        ("fleetprompt-api", "POST /api/v1/packages/{slug}/install"),
        ("fleetprompt-api", "POST /api/v1/signals"),
        ("fleetprompt-api", "create test.traced"),
        ("fleetprompt-worker", "attempt package.install"),
        ("fleetprompt-worker", "handle package.install"),
    }
    ids = {one.span_id for one in whole}
    assert len(ids) == len(whole)
    assert all(one.parent_id in ids for one in whole if one.parent_id)
    assert not any(token.encode() in body or CANARY.encode() in body for body in collector.raw)
