"""The OpenAPI description of the ingest routes, which are plain ASGI and so describe nothing themselves.

``describe`` adds the paths and schemas to a document; the types come from the envelope itself.
"""

from typing import Any

import msgspec

from fleetprompt.signals.envelope import BATCH_ITEMS, BATCH_LIMIT, SIGNAL_LIMIT, Envelope, Metadata

_REF = "#/components/schemas/{name}"
_OBJECT = {"type": "object", "additionalProperties": True}
_STORED = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "status": {"type": "string", "enum": ["created", "duplicate"]},
        "content": {
            "type": "string",
            "enum": ["same", "different", "expired"],
            "description": (
                "Of a duplicate: whether it says what the stored signal says. `expired` when retention "
                "has removed that one."
            ),
        },
    },
}
_REFUSED = {
    "type": "object",
    "required": ["status", "problem", "detail", "errors"],
    "properties": {
        "status": {"type": "string", "enum": ["refused"]},
        "problem": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": _OBJECT},
    },
}
_BATCH = {
    "type": "object",
    "required": ["created", "duplicates", "refused", "items"],
    "properties": {
        "created": {"type": "integer"},
        "duplicates": {"type": "integer"},
        "refused": {"type": "integer"},
        "items": {
            "type": "array",
            "items": {"anyOf": [{"$ref": _REF.format(name="Stored")}, _REFUSED]},
        },
    },
}


def _schemas() -> dict[str, Any]:
    _, found = msgspec.json.schema_components((Envelope, Metadata), ref_template=_REF)
    envelope = found["Envelope"]
    for name in ("type", "source"):
        # Python's end of string; JSON Schema's regular expressions know `$` alone.
        field = envelope["properties"][name]
        field["pattern"] = field["pattern"].replace(r"\Z", "$")
    envelope["properties"]["data"] = _OBJECT
    envelope["properties"]["metadata"] = {"$ref": _REF.format(name="Metadata")}
    return {
        "Envelope": envelope,
        "Metadata": {**found["Metadata"], "additionalProperties": True},
        "Stored": _STORED,
        "StoredBatch": _BATCH,
    }


def describe(document: dict[str, Any], problem_responses: dict[str, Any]) -> None:
    """Add both routes to an OpenAPI ``document``; ``problem_responses`` by status code."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_schemas())
    for path, who in (("/api/v1/signals", "user"), ("/api/edge/v1/signals", "connector")):
        document["paths"].setdefault(path, {})["post"] = _operation(who, problem_responses)


def _operation(who: str, problem_responses: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any] = {"$ref": _REF.format(name="Envelope")}
    content = {"application/json": {"schema": {"$ref": _REF.format(name="Stored")}}}
    batch = {"application/json": {"schema": {"$ref": _REF.format(name="StoredBatch")}}}
    either = {
        "application/json": {
            "schema": {
                "anyOf": [
                    {"$ref": _REF.format(name="Stored")},
                    {"$ref": _REF.format(name="StoredBatch")},
                ]
            }
        }
    }
    return {
        "operationId": f"post_signals_{who}",
        "tags": ["signals"],
        "summary": "Store one signal or a batch",
        "description": (
            "An answer of 2xx means committed. One signal, a JSON array, or NDJSON; at most "
            f"{BATCH_ITEMS} signals and {BATCH_LIMIT} bytes, each at most {SIGNAL_LIMIT}. A batch is "
            "stored whole or not at all, unless `partial` is true. After 503 send the same again: the "
            "dedupe key keeps it from being stored twice."
        ),
        "security": [{"ApiKey": []}],
        "parameters": [
            {
                "name": "partial",
                "in": "query",
                "required": False,
                "schema": {"type": "boolean", "default": False},
                "description": "Store the valid ones of a batch and say what is wrong with the rest.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [one, {"type": "array", "items": one, "maxItems": BATCH_ITEMS}]
                    }
                },
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
        "responses": {
            "200": {"description": "A duplicate, or a batch that is stored", "content": either},
            "201": {"description": "Stored", "content": content},
            "207": {"description": "Some of a partial batch were refused", "content": batch},
            **problem_responses,
        },
    }
