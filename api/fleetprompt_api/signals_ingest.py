"""``POST /api/v1/signals`` and ``POST /api/edge/v1/signals``: the hot path.

Plain ASGI routes instead of FastAPI's, and raw JSON passed through instead of models: reading and
writing models costs more than the commit. ``signals_openapi`` describes them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import (
    FleetPromptError,
    ForbiddenError,
    InvalidError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from fleetprompt.signals.envelope import (
    BATCH_LIMIT,
    Accepted,
    Producer,
    Refused,
    read_many,
    read_one,
)
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.submitted import Stored
from fleetprompt.telemetry import events
from fleetprompt.tenants.key_service import Identity, KeyRing
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.plain import PlainRoute

Endpoint = Callable[[Request], Awaitable[Response]]
_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_encoder = msgspec.json.Encoder()


class IngestState(Protocol):
    """What the application gives: how keys are known and where signals go."""

    @property
    def key_ring(self) -> KeyRing: ...

    @property
    def writer(self) -> SignalWriter: ...


def routes(state: Callable[[Request], IngestState]) -> list[PlainRoute]:
    """Both routes; ``state`` finds the application's state from a request."""
    return [
        PlainRoute("/api/v1/signals", _endpoint(state, connector=False), methods=["POST"]),
        PlainRoute("/api/edge/v1/signals", _endpoint(state, connector=True), methods=["POST"]),
    ]


def _endpoint(state: Callable[[Request], IngestState], *, connector: bool) -> Endpoint:
    async def post_signals(request: Request) -> Response:
        try:
            return await store(request)
        except FleetPromptError as error:
            events.signals_refused(error.id)
            raise

    async def store(request: Request) -> Response:
        found = state(request)
        identity = await found.key_ring.identify(bearer_token(request))
        identity.require(Scope.SIGNALS_WRITE)
        producer = _producer(identity, connector=connector)
        lines = _is_ndjson(request)
        body = await _read_body(request)
        if not lines and body.lstrip()[:1] != b"[":
            stored = await found.writer.submit(identity.tenant.schema, [read_one(body, producer)])
            return _answer(_item(stored[0]), 201 if stored[0].status == "created" else 200)
        items = read_many(body, producer, lines=lines)
        if request.query_params.get("partial") == "true":
            return await _partial(found.writer, identity.tenant.schema, items)
        return await _atomic(found.writer, identity.tenant.schema, items)

    return post_signals


def bearer_token(request: Request) -> str:
    """The API key of a request; only ever from the Authorization header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthenticatedError("Send your API key as `Authorization: Bearer fp_…`.")
    return token.strip()


def _producer(identity: Identity, *, connector: bool) -> Producer:
    if identity.kind == "conn":
        return Producer(needs_key=True, connector_id=identity.connector_id)
    if connector:
        raise ForbiddenError("This address is for connectors. Use a connector's key.")
    return Producer()


def _is_ndjson(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_JSON, _NDJSON):
        raise UnsupportedMediaTypeError(
            f"Send one signal or an array as {_JSON}, or one signal a line as {_NDJSON}."
        )
    return kind == _NDJSON


async def _read_body(request: Request) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > BATCH_LIMIT:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BATCH_LIMIT:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> TooLargeError:
    return TooLargeError(f"A request holds at most {BATCH_LIMIT} bytes. Send smaller batches.")


async def _atomic(writer: SignalWriter, schema: str, items: list[Accepted | Refused]) -> Response:
    """All or none."""
    refused = [item.error for item in items if isinstance(item, Refused)]
    if refused:
        # The most particular type speaks for all, so that a secret is not taken for a typing error.
        kind = next((type(e) for e in refused if type(e) is not InvalidError), InvalidError)
        raise kind(
            f"{len(refused)} of {len(items)} signals are not valid; none was stored. Mend them, or "
            "send `?partial=true` to store the others.",
            errors=[place for error in refused for place in error.errors][:100],
        )
    stored = await writer.submit(schema, [item for item in items if isinstance(item, Accepted)])
    return _batch([_item(one) for one in stored])


async def _partial(writer: SignalWriter, schema: str, items: list[Accepted | Refused]) -> Response:
    """Each on its own; one answer for each in the order of the request."""
    accepted = [item for item in items if isinstance(item, Accepted)]
    results: dict[str, dict[str, Any]] = {
        item.pointer: _refusal(item.error) for item in items if isinstance(item, Refused)
    }
    try:
        stored = await writer.submit(schema, accepted)
    except InvalidError:
        # PostgreSQL refused one of them: find out which by sending each alone.
        each = await asyncio.gather(
            *(writer.submit(schema, [item]) for item in accepted), return_exceptions=True
        )
        for item, result in zip(accepted, each, strict=True):
            if isinstance(result, InvalidError):
                results[item.pointer] = _refusal(result)
            elif isinstance(result, BaseException):
                raise result from None
            else:
                results[item.pointer] = _item(result[0])
    else:
        for item, one in zip(accepted, stored, strict=True):
            results[item.pointer] = _item(one)
    return _batch([results[item.pointer] for item in items])


def _item(stored: Stored) -> dict[str, Any]:
    answer = {"id": str(stored.id), "status": stored.status}
    return answer if stored.content is None else {**answer, "content": stored.content}


def _refusal(error: FleetPromptError) -> dict[str, Any]:
    events.signals_refused(error.id)
    return {
        "status": "refused",
        "problem": error.id,
        "detail": error.detail,
        "errors": error.errors,
    }


def _batch(items: list[dict[str, Any]]) -> Response:
    count = {
        name: sum(item["status"] == status for item in items)
        for name, status in (
            ("created", "created"),
            ("duplicates", "duplicate"),
            ("refused", "refused"),
        )
    }
    return _answer({**count, "items": items}, 207 if count["refused"] else 200)


def _answer(content: Any, status: int) -> Response:
    return Response(_encoder.encode(content), status, media_type=_JSON)
