"""A package's configuration as a form, made from the JSON Schema of its manifest, and back.

Options that no field can hold, and those that name a connection, are not in it: they stay.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetprompt.packages.manifest import Manifest


@dataclass(frozen=True, slots=True)
class SettingField:
    """One option. ``kind``: ``check``, ``choice``, ``lines`` (a list's, one each), ``number`` or ``text``."""

    name: str
    title: str
    description: str
    kind: str
    value: str
    choices: tuple[str, ...] = ()
    wrong: str | None = None

    @property
    def checked(self) -> bool:
        """Whether a ``check`` is on."""
        return self.value == "on"


def fields_of(
    manifest: Manifest,
    config: Mapping[str, Any],
    connections: Collection[str],
    *,
    sent: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> list[SettingField]:
    """The form's fields: as they are stored, or as they were ``sent`` with what is wrong with them."""
    wrong: dict[str, str] = {}
    for error in errors:
        parts = str(error.get("pointer", "")).split("/")
        if parts[:2] == ["", "config"] and len(parts) > 2:
            wrong.setdefault(parts[2], str(error.get("detail", "")))
    found = []
    for name, schema in _options(manifest, connections).items():
        kind = _kind(schema)
        if kind is None:
            continue
        stored = _shown(config.get(name, schema.get("default")))
        found.append(
            SettingField(
                name=name,
                title=schema.get("title", name),
                description=schema.get("description", ""),
                kind=kind,
                value=stored if sent is None else sent.get(name, ""),
                choices=tuple(schema.get("enum", ())),
                wrong=wrong.get(name),
            )
        )
    return found


def config_of(
    manifest: Manifest,
    config: Mapping[str, Any],
    connections: Collection[str],
    sent: Mapping[str, str],
) -> dict[str, Any]:
    """The whole configuration that the form stands for; what cannot be is left to the schema to refuse."""
    options = _options(manifest, connections)
    kept = {name: value for name, value in config.items() if name not in connections}
    read = {
        name: _read(schema, sent.get(name, ""))
        for name, schema in options.items()
        if _kind(schema) is not None
    }
    return {**kept, **read}


def _options(manifest: Manifest, connections: Collection[str]) -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = manifest.config.get("properties", {})
    return {name: schema for name, schema in properties.items() if name not in connections}


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    told = schema.get("type", ())
    return (told,) if isinstance(told, str) else tuple(told)


def _kind(schema: Mapping[str, Any]) -> str | None:
    types = [one for one in _types(schema) if one != "null"]
    if types == ["array"]:
        return "lines" if schema.get("items", {}).get("type") == "string" else None
    if types == ["string"]:
        return "choice" if "enum" in schema else "text"
    return {"boolean": "check", "integer": "number"}.get(types[0]) if len(types) == 1 else None


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, list):
        return "\n".join(str(one) for one in value)
    return "" if value is None else str(value)


def _read(schema: Mapping[str, Any], text: str) -> object:
    kind = _kind(schema)
    if kind == "check":
        return text == "on"
    if kind == "lines":
        return [line.strip() for line in text.split("\n") if line.strip()]
    text = text.strip()
    if kind == "number":
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else text
    return None if not text and "null" in _types(schema) else text
