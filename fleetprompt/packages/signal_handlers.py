"""The signal handlers of every package, in one table for the ingest path."""

from collections.abc import Mapping
from typing import cast

from fleetprompt.packages.registry import handlers_of, registry
from fleetprompt.signals.handlers import Handler, Handlers


def signal_handlers() -> Handlers:
    """What the packages' ``handlers.py`` register; asked only where the package is installed."""
    found = []
    for slug in registry():
        module = handlers_of(slug)
        if module is not None:
            found.append((slug, cast(Mapping[str, Handler], module.signal_handlers)))
    return Handlers.of(found)
