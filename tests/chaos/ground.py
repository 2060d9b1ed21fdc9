"""What the kill tests stand on: a PostgreSQL of their own, migrated, and tenants on it."""

import base64
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from fleetprompt.db.migrate import migrate
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings


@contextlib.contextmanager
def platform() -> Iterator[tuple[Settings, EmbeddedPostgres]]:
    """A migrated platform without processes; the server may be killed and started again."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "pg") as server,
    ):
        settings = Settings(
            state_dir=Path(folder),
            database_url=SecretStr(server.owner_url),
            master_key=SecretStr(base64.b64encode(os.urandom(32)).decode()),
            master_key_source="env",
            allowed_private_networks=("127.0.0.0/8",),
            allow_plain_http=True,
        )
        migrate(settings)
        yield settings, server
