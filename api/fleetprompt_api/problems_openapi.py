"""Problem answers in the OpenAPI document."""

from typing import Any

from fleetprompt.errors import WebchatError
from fleetprompt_api.problems import MEDIA_TYPE, Problem, problem_types

_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _answer(status: int) -> dict[str, Any]:
    ids = [
        f"`{kind.id}`"
        for kind in problem_types().values()
        if kind.status == status and not issubclass(kind, WebchatError)
    ]
    answer: dict[str, Any] = {
        "description": f"Problem: {', '.join(ids)}",
        "content": _CONTENT,
    }
    if status in (429, 503):
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds until it is worth trying again.",
                "schema": {"type": "integer", "minimum": 1},
                "required": True,
            }
        }
    return answer


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers that an endpoint gives beyond those that follow from its parameters."""
    return {status: _answer(status) for status in statuses}


def add_problems(document: dict[str, Any]) -> None:
    """Give every operation the problems that it can answer, and the document their schema."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas["Problem"] = schema
    for path in document["paths"].values():
        for operation in path.values():
            _add(operation)


def _add(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    statuses = {500, 503}
    parameters = operation.get("parameters", [])
    if operation.get("security"):
        statuses |= {401, 403}
    if any(one["in"] == "path" for one in parameters):
        statuses.add(404)
    if parameters:
        statuses.add(422)
    if "requestBody" in operation:
        statuses |= {400, 413, 415, 422}
    for status in statuses:
        answers.setdefault(str(status), _answer(status))
