"""What ``POST /api/v1/directives`` takes, in the OpenAPI document: one body for each open type."""

from collections.abc import Mapping
from typing import Any

from fleetprompt.directives.types import AnyDirectiveType

_BODY = "NewDirective"
_REF = "#/components/schemas/{name}"


def describe(document: dict[str, Any], types: Mapping[str, AnyDirectiveType]) -> None:
    """Turn the body's schema into the union of the open types' bodies, told apart by ``type``.

    Without an open type the plain body stays, and says that it is refused.
    """
    schemas = document["components"]["schemas"]
    plain = schemas[_BODY]
    bodies = {
        name: _body(schemas, plain, kind) for name, kind in sorted(types.items()) if kind.over_http
    }
    if not bodies:
        plain["description"] += (
            "\n\nNo directive type of this version is open to it, so that every request is refused: "
            "each type has an endpoint of its own or is the platform's."
        )
        return
    schemas[_BODY] = {
        "title": plain["title"],
        "description": plain["description"],
        "oneOf": [{"$ref": ref} for ref in bodies.values()],
        "discriminator": {"propertyName": "type", "mapping": bodies},
    }


def _body(schemas: dict[str, Any], plain: dict[str, Any], kind: AnyDirectiveType) -> str:
    """Add the schemas of one type; the reference of its body.

    They are named below the type, since two packages may call their models alike.
    """
    own = f"{_BODY}.{kind.name}"
    params = kind.params.model_json_schema(ref_template=_REF.format(name=f"{own}.{{model}}"))
    for name, schema in params.pop("$defs", {}).items():
        schemas[f"{own}.{name}"] = schema
    schemas[f"{own}.params"] = params
    properties = {
        **plain["properties"],
        "type": {"type": "string", "const": kind.name},
        "params": {"$ref": _REF.format(name=f"{own}.params")},
    }
    required = ["type", "params"]
    if kind.target == "connector":
        properties["target"] = {
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "description": "The id of the connector that shall do it.",
        }
        required.append("target")
    else:
        del properties["target"]
    schemas[own] = {
        **plain,
        "title": kind.name,
        "description": kind.summary,
        "properties": properties,
        "required": required,
    }
    return _REF.format(name=own)
