"""What the connector remembers: one SQLite database for each profile."""

from fleetprompt_edge.store.database import Store
from fleetprompt_edge.store.lock import ProfileLock

__all__ = ["ProfileLock", "Store"]
