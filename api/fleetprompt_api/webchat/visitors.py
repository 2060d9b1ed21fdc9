"""The visitors' API as one router: docs/reference/webchat-api.md."""

from fastapi import APIRouter

from fleetprompt_api.webchat import bootstrap, conversations, events, messages

routes = APIRouter()
for _part in (bootstrap, conversations, messages, events):
    routes.include_router(_part.routes)
