"""Routes without FastAPI's reading and writing of models, for the hot path and for what is no JSON."""

from starlette.routing import Match, Route
from starlette.types import Scope


class PlainRoute(Route):
    """A route that notes in the scope which it is, as FastAPI's own do; the router does not.

    The log and the metrics name requests by their route's template.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it is meant, and what the scope shall hold then."""
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found["route"] = self
        return match, found
