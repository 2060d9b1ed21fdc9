"""Who asks for a directive."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["owner", "admin", "member", "viewer", "connector", "platform"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, a key or the platform itself; ``id`` is recorded with every change it causes."""

    id: str
    role: Role


# The platform acts for a tenant only where a schedule or a handler that the tenant set up says so.
PLATFORM = Actor("platform", "platform")
