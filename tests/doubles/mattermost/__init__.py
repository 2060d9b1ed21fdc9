"""A Mattermost stand-in, written from the contract tables A1 to A10 of the digest's research."""

from .behaviour import Behaviour
from .server import RunningMattermost, running_mattermost
from .state import DEFAULT_HOOK_ID, Post, State
from .text import find_mentions, rewrite

__all__ = [
    "DEFAULT_HOOK_ID",
    "Behaviour",
    "Post",
    "RunningMattermost",
    "State",
    "find_mentions",
    "rewrite",
    "running_mattermost",
]
