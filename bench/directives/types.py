"""Directive types of the benchmark's own, so that nothing but the engine is measured."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, DirectiveType

NOTHING = "bench.nothing"
TELL = "bench.tell"


class Numbered(DirectiveParams):
    """Which one of the asked for it is."""

    number: int


def tell_start(number: int) -> None:
    """Say on standard output that this one has started, and when."""
    now = time.time()
    sys.stdout.write(f"started {number} {now!r}\n")
    sys.stdout.flush()


async def do_nothing(_context: HandlerContext, _params: Numbered) -> dict[str, Any]:
    """The handler that costs nothing."""
    return {}


async def tell(_context: HandlerContext, params: Numbered) -> dict[str, Any]:
    """The handler that says when it was entered."""
    tell_start(params.number)
    return {}


TYPES: Mapping[str, AnyDirectiveType] = {
    NOTHING: DirectiveType(NOTHING, "Does nothing.", Numbered, do_nothing),
    TELL: DirectiveType(TELL, "Says when it started.", Numbered, tell),
}
