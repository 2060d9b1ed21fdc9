"""What is wrong with a configuration, told by place and rule and never by value: it may be a secret."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from fleetprompt.errors import InvalidError
from fleetprompt.packages.manifest import Manifest

# Deeper than any form; keeps validators and printers clear of the recursion limit.
MAX_DEPTH = 16
MAX_ERRORS = 20
_SHOWN = 80

_TYPE_NAMES = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
    "object": "an object",
    "array": "a list",
}


def pointer_to(base: str, *path: str | int) -> str:
    """The RFC 6901 pointer of ``path`` below ``base``."""
    return base + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def refuse_unstorable(value: object, pointer: str) -> None:
    """Raise InvalidError for what PostgreSQL's jsonb or our own code could not hold.

    That is NUL, lone surrogates, numbers that are not finite, and nesting deeper than MAX_DEPTH.
    """
    waiting: list[tuple[str, object, int]] = [(pointer, value, 0)]
    while waiting:
        at, current, depth = waiting.pop()
        wrong = None
        if depth > MAX_DEPTH:
            wrong = f"is nested deeper than {MAX_DEPTH} levels"
        elif isinstance(current, str) and not _storable(current):
            wrong = "holds a NUL or half of a surrogate pair"
        elif isinstance(current, float) and not math.isfinite(current):
            wrong = "is not a finite number"
        elif isinstance(current, Mapping):
            if not all(isinstance(name, str) and _storable(name) for name in current):
                wrong = "has a name that cannot be stored"
            else:
                waiting.extend(
                    (pointer_to(at, name), item, depth + 1) for name, item in current.items()
                )
        elif isinstance(current, list):
            waiting.extend((pointer_to(at, i), item, depth + 1) for i, item in enumerate(current))
        if wrong:
            detail = f"The value {wrong}."
            raise InvalidError(detail, errors=[{"pointer": at[:500], "detail": detail}])


def schema_errors(manifest: Manifest, config: object, pointer: str) -> list[dict[str, str]]:
    """Each violation of the manifest's schema as ``{"pointer", "detail"}``, in a stable order."""
    validator = Draft202012Validator(
        manifest.config, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    found: list[dict[str, str]] = []
    for error in validator.iter_errors(config):
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            found += [
                {
                    "pointer": pointer_to(pointer, *path, str(name)[:_SHOWN]),
                    "detail": f"There is no such option; there are: {', '.join(known) or 'none'}.",
                }
                for name in sorted(error.instance)
                if name not in known
            ]
        elif error.validator == "required":
            # jsonschema reports every missing name by itself, with the name first in its message.
            found += [
                {"pointer": pointer_to(pointer, *path, name), "detail": "This option is required."}
                for name in error.validator_value
                if name not in error.instance
            ]
        else:
            found.append({"pointer": pointer_to(pointer, *path), "detail": _rule(error)})
    unique = {(item["pointer"], item["detail"]): item for item in found}
    return [unique[key] for key in sorted(unique)][:MAX_ERRORS]


def _rule(error: ValidationError) -> str:
    """The rule that was broken, in words."""
    asked: Any = error.validator_value
    rules: dict[str, Callable[[], str]] = {
        "type": lambda: f"Must be {_types(asked)}.",
        "enum": lambda: f"Must be one of: {', '.join(map(repr, asked))}.",
        "const": lambda: f"Must be {asked!r}.",
        "format": lambda: f"Must be a valid {asked}.",
        "pattern": lambda: f"Must match {asked}.",
        "minLength": lambda: f"Must have at least {asked} characters.",
        "maxLength": lambda: f"Must have at most {asked} characters.",
        "minimum": lambda: f"Must be at least {asked}.",
        "maximum": lambda: f"Must be at most {asked}.",
        "minItems": lambda: f"Must have at least {asked} items.",
        "maxItems": lambda: f"Must have at most {asked} items.",
        "uniqueItems": lambda: "Must not hold anything twice.",
    }
    told = rules.get(str(error.validator))
    # A schema may explain itself better than a rule can.
    explained = error.schema.get("description") if isinstance(error.schema, Mapping) else None
    return told() if told else str(explained or f"Breaks the rule {error.validator!r}.")


def _types(asked: str | list[str]) -> str:
    names = [asked] if isinstance(asked, str) else asked
    return " or ".join(_TYPE_NAMES.get(name, name) for name in names)


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
