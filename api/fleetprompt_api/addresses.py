"""Whose address a request comes from: what limits on guessing and chat go by."""

from fastapi import Request

from fleetprompt.webchat.addresses import client_address
from fleetprompt_api.state import AppState


def address_of(request: Request, platform: AppState) -> str:
    """The client's address as far as it can be trusted: behind the proxies that the operator counted."""
    peer = request.client.host if request.client else ""
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    return client_address(peer, forwarded, platform.settings.trusted_proxies)
