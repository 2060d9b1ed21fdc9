"""The registry: every folder below ``fleetprompt/packages`` that has a manifest.

Adding a package touches nothing else. Beside ``manifest.toml`` a folder may hold

- ``config.py`` with ``validate(config) -> PackageConfig``: what JSON Schema cannot say;
- ``handlers.py`` with ``signal_handlers`` and ``DIRECTIVE_TYPES`` (see ``HandlersModule``).

Both are imported when first asked for, so that reading the registry costs a few small files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

import fleetprompt.packages as home
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.packages.canonical import canonical_json
from fleetprompt.packages.config_errors import refuse_unstorable, schema_errors
from fleetprompt.packages.manifest import Manifest, read_manifest


@runtime_checkable
class PackageConfig(Protocol):
    """A checked configuration, with defaults filled in."""

    def as_json(self) -> dict[str, Any]:
        """What is stored in ``installations.config`` and goes into ``config_checksum``."""

    def missing(self) -> tuple[str, ...]:
        """Options that must still be given before the package can work; empty when it can."""


class ConfigModule(Protocol):
    """A package's ``config.py``."""

    def validate(self, config: Mapping[str, Any]) -> PackageConfig:
        """The typed configuration; raises InvalidError with pointers relative to ``config``."""


class HandlersModule(Protocol):
    """A package's ``handlers.py``; the types of what it holds belong to the modules named.

    ``signal_handlers``: signal type, or prefix with ``.*``, → pure function from a signal to
    directive requests, called in the transaction that stores the signal
    (``fleetprompt.signals.handlers``). ``DIRECTIVE_TYPES``: the directives that the package
    performs (``fleetprompt.directives.types``). It may also hold ``OPERATIONS``, what its
    installations can be asked to do (``fleetprompt.packages.operations``), and
    ``when_removed(session, context)``, what else ends in the transaction that uninstalls it.
    """

    signal_handlers: Mapping[str, Callable[..., Any]]
    DIRECTIVE_TYPES: Sequence[Any]


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """The configuration of a package that has no ``config.py``."""

    values: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The values as they were given."""
        return dict(self.values)

    def missing(self) -> tuple[str, ...]:
        """Nothing: what the schema requires is there."""
        return ()


@lru_cache(maxsize=1)
def registry() -> Mapping[str, Manifest]:
    """Every package by slug, in order of slug. Raises ManifestError if one is wrong."""
    folders = sorted(
        (path.parent for root in home.__path__ for path in Path(root).glob("*/manifest.toml")),
        key=lambda folder: folder.name,
    )
    return MappingProxyType({folder.name: read_manifest(folder) for folder in folders})


def get(slug: str) -> Manifest:
    """The manifest of that package; raises NotFoundError if there is none."""
    try:
        return registry()[slug]
    except (KeyError, TypeError):
        raise NotFoundError(f"There is no package {slug!r:.80}.") from None


def validate_config(manifest: Manifest, config: object) -> PackageConfig:
    """``config`` checked by the manifest's JSON Schema, then by the package's own code.

    Raises InvalidError; its pointers start with ``/config`` and no message repeats a value.
    """
    refuse_unstorable(config, "/config")
    found = schema_errors(manifest, config, "/config")
    if found:
        raise InvalidError(found[0]["detail"], errors=found)
    values = cast("dict[str, Any]", config)
    module = _module(manifest.slug, "config")
    if module is None:
        return PlainConfig(MappingProxyType(dict(values)))
    try:
        return cast(ConfigModule, module).validate(values)
    except InvalidError as error:
        told = [{**item, "pointer": f"/config{item['pointer']}"} for item in error.errors]
        raise InvalidError(error.detail, errors=told or [{"pointer": "/config"}]) from error


def handlers_of(slug: str) -> HandlersModule | None:
    """The package's ``handlers.py``, or None if it has none; raises NotFoundError for no package."""
    return cast(HandlersModule | None, _module(get(slug).slug, "handlers"))


def config_checksum(config: Any) -> str:
    """SHA-256 in hex of the configuration's canonical JSON: equal content, equal checksum."""
    return sha256(canonical_json(config)).hexdigest()


def _module(slug: str, name: str) -> object | None:
    """Module ``name`` of the package, imported; None if the package has no such file."""
    full_name = f"{home.__name__}.{slug}.{name}"
    return import_module(full_name) if find_spec(full_name) else None
