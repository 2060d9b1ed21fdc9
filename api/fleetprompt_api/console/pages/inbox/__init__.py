"""The inbox of the website chat: visitors' conversations, for the people who answer them."""

from fastapi import APIRouter

from fleetprompt_api.console.pages.inbox import actions, conversation, conversations, events, sites

routes = APIRouter()
for _part in (events, conversations, sites, conversation, actions):
    routes.include_router(_part.routes)
