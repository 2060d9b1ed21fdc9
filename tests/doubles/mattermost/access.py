"""Who asks, and what he may read: what every call of the REST interface begins with (contract A7)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from .state import Channel, State, User
from .wire import AppError, common_headers

COOKIE = "MMAUTHTOKEN"


def authenticate(state: State, request: Request) -> User:
    """The user of the cookie, which wins, or of the bearer token."""
    switches = state.behaviour
    cookie = request.cookies.get(COOKIE)
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    token = cookie or bearer
    if switches.token_in_error:
        raise AppError(500, "api.context.invalid_token.error", f"Invalid session token={token}.")
    user = state.tokens.get(token)
    without_csrf_header = cookie and request.method != "GET"
    disabled = user and not user.is_bot and not switches.personal_tokens_enabled
    if user is None or without_csrf_header or disabled or switches.token_expired:
        raise AppError(
            401,
            "api.context.session_expired.app_error",
            "Invalid or expired session, please login again.",
        )
    if switches.second_factor_enforced and not user.is_bot:
        raise AppError(403, "api.context.mfa_required.app_error")
    return user


def answer(body: Any, status: int = 200) -> JSONResponse:
    """A reply of the application."""
    return JSONResponse(body, status, headers=common_headers())


def may_read(state: State, user: User, channel: Channel) -> bool:
    """Whether the user may read the channel."""
    if user.is_bot and not state.behaviour.bot_may_read:
        return False
    if channel.team_id == state.other_team_id:
        return False
    if channel.type == "P":
        return user is state.owner and state.behaviour.hook_owner_reads_private
    return True


def forbidden() -> AppError:
    """What an account without the permission is told."""
    return AppError(
        403, "api.context.permissions.app_error", "You do not have the appropriate permissions."
    )


def readable_channel(state: State, user: User, channel_id: str) -> Channel:
    """The channel; an unknown one is forbidden too."""
    channel = state.channels.get(channel_id)
    if channel is None or not may_read(state, user, channel):
        raise forbidden()
    return channel
