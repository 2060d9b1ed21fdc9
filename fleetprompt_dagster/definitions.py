"""The root of the code location: what every domain in ``defs/`` offers, and the resources."""

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module

import dagster as dg

from fleetprompt_dagster import defs as domains
from fleetprompt_dagster.executors import job_executor
from fleetprompt_dagster.resources import PlatformResource


def build_defs(overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """All definitions, with some resources replaced by others of the same name.

    A domain is a folder of ``defs/`` with a module ``definitions``; adding one touches nothing else.
    """
    return dg.Definitions.merge(
        *_leaves(),
        dg.Definitions(
            resources={"platform": PlatformResource(), **(overrides or {})},
            # Of every job and of assets that are materialised by hand: a deployment chooses once.
            executor=job_executor(),
        ),
    )


def _leaves() -> Iterator[dg.Definitions]:
    for domain in pkgutil.iter_modules(domains.__path__, f"{domains.__name__}."):
        yield import_module(f"{domain.name}.definitions").definitions


defs = build_defs()
