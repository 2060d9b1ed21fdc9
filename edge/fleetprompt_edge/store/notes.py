"""Single facts that outlive a run: the tenant, the last poll, the last post."""

import sqlite3


class Notes:
    """Texts by name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> str | None:
        """What was noted, if anything was."""
        row = self._connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, name: str, value: str) -> None:
        """Note it; what was noted under that name before is gone."""
        self._connection.execute(
            "INSERT INTO notes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def remove(self, name: str) -> None:
        """Forget it."""
        self._connection.execute("DELETE FROM notes WHERE name = ?", (name,))

    def under(self, prefix: str) -> dict[str, str]:
        """What was noted under names that begin so, by the rest of the name."""
        rows = self._connection.execute(
            "SELECT name, value FROM notes WHERE substr(name, 1, ?) = ? ORDER BY name",
            (len(prefix), prefix),
        )
        return {name[len(prefix) :]: value for name, value in rows}
