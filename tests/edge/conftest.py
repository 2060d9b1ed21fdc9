"""What the connector's tests share: one Dovecot, emptied for each test, one platform, and a store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetprompt_edge.store import Store

from fleetprompt.settings import Settings
from tests.api.serving import Server, serving
from tests.edge.dovecot import Dovecot, dovecot


@pytest.fixture(scope="session")
def server() -> Iterator[Dovecot]:
    """A Dovecot of this worker's own."""
    with dovecot() as found:
        yield found


@pytest.fixture
def bridge(server: Dovecot) -> Dovecot:
    """The same, with an empty mailbox."""
    with server.client() as client:
        for flags, _, name in client.list_folders():
            if name in ("INBOX", "Sent", "Drafts"):
                client.select_folder(name)
                client.delete_messages(client.search())
                client.expunge()
            elif b"\\Noselect" not in flags:
                client.delete_folder(name)
    return server


@pytest.fixture(scope="session")
def served(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A platform of this worker's own; each test has a tenant of its own."""
    with serving(settings, tmp_path_factory.mktemp("platform")) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store(tmp_path / "state") as made:
        yield made
