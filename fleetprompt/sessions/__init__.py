"""Sessions of people at the console: one member of one tenant, for a bounded time."""
