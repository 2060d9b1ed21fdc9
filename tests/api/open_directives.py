"""Directive types that are open to ``POST /api/v1/directives``, and an application that knows them."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fleetprompt_api.app import create_app
from pydantic import BaseModel, Field

from fleetprompt.clock import system_clock
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, DirectiveType
from fleetprompt.settings import get_settings
from tests.directives.connector_types import CARRY


class Margin(BaseModel):
    """A part of the params that is an object of its own."""

    left: Annotated[int, Field(ge=0, le=100)] = 2


class Lines(DirectiveParams):
    """What to write."""

    words: Annotated[str, Field(min_length=1, max_length=200)]
    where: Literal["wall", "paper"] = "paper"
    margin: Margin = Margin()


@dataclass
class Workshop:
    """What the handler did: words in order, and when. While ``held``, it waits for ``go_on``."""

    written: list[tuple[str, datetime]] = field(default_factory=list)
    at_work: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    held: bool = False

    async def write(self, context: HandlerContext, params: Lines) -> dict[str, Any]:
        """Write the words down."""
        self.written.append((params.words, system_clock()))
        self.at_work.set()
        if self.held:
            await self.go_on.wait()
        return {"words": params.words}

    def types(self) -> dict[str, AnyDirectiveType]:
        """A registry with open types, and one that is not."""
        write: AnyDirectiveType = DirectiveType(
            "test.write",
            "Writes words down.",
            Lines,
            self.write,
            roles=frozenset({"owner", "admin", "member"}),
            over_http=True,
        )
        found = (
            write,
            replace(write, name="test.announce", roles=frozenset({"owner"})),
            replace(write, name="test.weigh", approval=ApprovalPolicy(), timeout=7.0),
            replace(write, name="test.apart", over_http=False, concurrency=3),
            replace(CARRY, over_http=True),
        )
        return {kind.name: kind for kind in found}


def __getattr__(name: str) -> FastAPI:
    """``app`` for a server: made when one asks for it, with the process's own settings."""
    if name != "app":
        raise AttributeError(name)
    return create_app(get_settings(), Workshop().types())
