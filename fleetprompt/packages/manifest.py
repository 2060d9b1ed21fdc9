"""The manifest of a package: ``manifest.toml``, read strictly.

A manifest is metadata: who the package is, what it provides, which signals it reads and writes,
which hosts it may reach, and its configuration as JSON Schema 2020-12. Anything unknown, missing
or malformed is a ManifestError that says where; a package with a wrong manifest never starts.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fleetprompt import secrets

# https://semver.org/spec/v2.0.0.html, its suggested expression.
_SEMVER = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
)
_SLUG = r"^[a-z][a-z0-9]*(?:_[a-z0-9]+)*$"
_TYPE = r"^[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+$"
_TYPE_PATTERN = r"^[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*\.(?:\*|[a-z][a-z0-9_]*)$"
# A fixed host, or the host that the tenant's credential of that kind names.
_HOST = (
    r"^(?:credential:[a-z][a-z0-9_]*"
    r"|(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9])$"
)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Slug = Annotated[str, Field(pattern=_SLUG, max_length=63)]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S[^\r\n]*$")]
Prose = Annotated[str, Field(min_length=1, max_length=8000)]
SignalType = Annotated[str, Field(pattern=_TYPE, max_length=128)]
SignalPattern = Annotated[str, Field(pattern=_TYPE_PATTERN, max_length=128)]


class ManifestError(ValueError):
    """A package's folder is not a package; the message says which file and what is wrong in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Provided(_Strict):
    """One capability that an installation gives its tenant."""

    kind: Literal["workflow", "agent", "integration"]
    name: Slug
    description: Line


class Manifest(_Strict):
    """What a package says of itself.

    ``consumes`` holds signal types or prefixes (``package.*``); ``emits`` exact types; ``hosts``
    host names, or ``credential:<kind>`` for the host that the tenant's credential names;
    ``config`` is a JSON Schema (2020-12) of an object, its secrets marked ``writeOnly``;
    ``onboarding`` is Markdown shown beside the form.
    """

    slug: Slug
    name: Line
    version: Annotated[str, Field(pattern=_SEMVER, max_length=64)]
    category: Slug
    publisher: Line
    description: Prose
    provides: Annotated[tuple[Provided, ...], Field(min_length=1, strict=False)]
    consumes: Annotated[tuple[SignalPattern, ...], Field(strict=False)] = ()
    emits: Annotated[tuple[SignalType, ...], Field(strict=False)] = ()
    hosts: Annotated[tuple[Annotated[str, Field(pattern=_HOST)], ...], Field(strict=False)] = ()
    config: dict[str, Any]
    onboarding: Prose

    @field_validator("consumes", "emits", "hosts")
    @classmethod
    def _each_once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values):
            raise ValueError("holds something twice")
        return values

    @model_validator(mode="after")
    def _schema_is_sound(self) -> Self:
        try:
            Draft202012Validator.check_schema(self.config)
        except SchemaError as error:
            raise ValueError(f"config{error.json_path[1:]}: {error.message}") from error
        if self.config.get("$schema", _DIALECT) != _DIALECT:
            raise ValueError(f"config.$schema: only {_DIALECT} is read")
        if self.config.get("type") != "object":
            raise ValueError("config.type: a configuration is an object")
        if self.config.get("additionalProperties") is not False:
            raise ValueError("config.additionalProperties: must be false; unknown options are told")
        for where, schema in _schemas(self.config):
            reference = schema.get("$ref", "#")
            if not (isinstance(reference, str) and reference.startswith("#")):
                raise ValueError(f"{where}.$ref: only references within the manifest are followed")
            for name, option in _properties(schema):
                if secrets.NAME.match(name) and option.get("writeOnly") is not True:
                    raise ValueError(f"{where}.properties.{name}: a secret must be writeOnly")
        return self

    @property
    def secret_options(self) -> frozenset[str]:
        """Names of the top-level options that are never given back."""
        return frozenset(
            name for name, option in _properties(self.config) if option.get("writeOnly") is True
        )


def parse_manifest(text: str, *, where: str) -> Manifest:
    """The manifest in ``text``; ``where`` names the file in a ManifestError."""
    try:
        return Manifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{where}: not TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join(part for part in (".".join(map(str, item["loc"])), item["msg"]) if part)
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ManifestError(f"{where}: {wrong}") from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the package in ``folder``, whose name must be the package's slug."""
    path = folder / "manifest.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}") from error
    manifest = parse_manifest(text, where=str(path))
    if manifest.slug != folder.name:
        raise ManifestError(f"{path}: slug is {manifest.slug!r}, the folder {folder.name!r}")
    return manifest


def matches(pattern: str, signal_type: str) -> bool:
    """Whether a ``consumes`` entry covers that signal type: ``package.*`` covers what is below."""
    if pattern.endswith(".*"):
        return signal_type.startswith(pattern[:-1])
    return signal_type == pattern


def _schemas(root: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the schema with its dotted path; names of options count as objects too."""
    waiting: list[tuple[str, Any]] = [("config", root)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict):
            yield where, value
            waiting.extend((f"{where}.{name}", child) for name, child in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{where}[{index}]", child) for index, child in enumerate(value))


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    properties = schema.get("properties")
    if isinstance(properties, dict):
        yield from (
            (re.sub(r"\s", "_", k), v) for k, v in properties.items() if isinstance(v, dict)
        )
