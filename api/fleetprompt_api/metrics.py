"""``GET /metrics``: what Prometheus reads, for whoever has the operator's token (docs/reference/metrics.md).

It is no operation of a tenant's API: it is not in the OpenAPI document, and without a token in the
settings it is not there at all.
"""

from hmac import compare_digest

from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import NotFoundError, UnauthenticatedError
from fleetprompt_api.plain import PlainRoute
from fleetprompt_api.signals_ingest import bearer_token
from fleetprompt_api.state import state_of

PATH = "/metrics"


async def scrape(request: Request) -> Response:
    """All metrics of the platform, whichever process of the API answers."""
    platform = state_of(request)
    wanted = platform.settings.metrics_token
    if wanted is None:
        raise NotFoundError(
            "Metrics are not served. Set FLEETPROMPT_METRICS_TOKEN and send it as a bearer token."
        )
    if not compare_digest(bearer_token(request).encode(), wanted.get_secret_value().encode()):
        raise UnauthenticatedError("This is not the token of FLEETPROMPT_METRICS_TOKEN.")
    content, media_type = await platform.scrape.text(request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})


def routes() -> list[PlainRoute]:
    """The one route."""
    return [PlainRoute(PATH, scrape, methods=["GET"])]
