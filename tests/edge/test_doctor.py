"""Planted faults, and what the doctor says of each: the one true cause, and how to mend it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.serving import Server, serving
from tests.api.support import Keys
from tests.edge.connecting import Customer, customer
from tests.edge.dovecot import Dovecot
from tests.edge.ingesting import CONNECTOR

pytestmark = pytest.mark.slow

NOBODY = "0198c0de-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def served(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One platform for all tests of this file."""
    with serving(settings, tmp_path_factory.mktemp("platform")) as found:
        yield found


@pytest.fixture
async def home(
    served: Server,
    settings: Settings,
    database: Database,
    tenant: Tenant,
    bridge: Dovecot,
    tmp_path: Path,
) -> Customer:
    key = await Keys(database, settings).connector(tenant, CONNECTOR)
    return customer(tmp_path / "home", bridge, served.url, key)


def set_option(home: Customer, name: str, value: str) -> None:
    """Give an option of the profile another value, whether it is set or shown in a comment."""
    text, count = re.subn(
        rf"^(?:# )?{name} = .*$", f"{name} = {value}", home.profile.read_text(), count=1, flags=re.M
    )
    assert count == 1
    home.profile.write_text(text)


def unpin(home: Customer) -> None:
    lines = home.profile.read_text().splitlines()
    kept = [one for one in lines if not one.startswith("certificate_sha256")]
    home.profile.write_text("\n".join(kept))


def damage(home: Customer) -> None:
    home.command("status")
    path = home.state / "connector.sqlite3"
    path.write_bytes(b"\xff" * 5000 + path.read_bytes()[5000:])


def fill(home: Customer) -> None:
    from fleetprompt_edge.store import Store

    set_option(home, "max_queue_bytes", "65536")
    with Store(home.state) as store, store.transaction():
        store.queue.put("k", "t.t", "x" * 70_000, 1)


def test_all_is_well(home: Customer) -> None:
    code, told = home.command("doctor")
    assert code == 0, told
    assert {one["state"] for one in told["checks"]} == {"well"}


FAULTS: dict[str, tuple[Callable[[Customer], object], str, str]] = {
    "wrong password": (
        lambda home: home.command("secrets", "set", "bridge-password", given="wrong\n"),
        "bridge login",
        "not Proton's own password",
    ),
    "no password": (
        lambda home: home.command("secrets", "remove", "bridge-password"),
        "bridge password",
        "secrets set bridge-password",
    ),
    "no key": (
        lambda home: home.command("secrets", "remove", "api-key"),
        "platform key",
        "secrets set api-key",
    ),
    "the key of the encrypted file is gone": (
        lambda home: home.key_file.unlink(),
        "bridge password",
        "",
    ),
    "certificate changed": (
        lambda home: set_option(home, "certificate_sha256", f'"{":".join(["00"] * 32)}"'),
        "bridge certificate",
        "compare this fingerprint",
    ),
    "certificate not pinned": (
        unpin,
        "bridge certificate",
        'bridge.certificate_sha256 = "',
    ),
    "nothing listens": (
        lambda home: set_option(home, "port", "9"),
        "bridge port",
        "Start Bridge|bridge.imap.port",
    ),
    "wrong connection mode": (
        lambda home: set_option(home, "tls", '"implicit"'),
        "bridge certificate",
        "bridge.imap.tls",
    ),
    "no such folder": (
        lambda home: set_option(home, "folders", '["Labels/none"]'),
        "folders",
        "INBOX",
    ),
    "platform unreachable": (
        lambda home: set_option(home, "base_url", '"http://127.0.0.1:9"'),
        "platform",
        "fleetprompt.base_url",
    ),
    "key revoked": (
        lambda home: home.command("secrets", "set", "api-key", given="fp_conn_gone\n"),
        "platform",
        "secrets set api-key",
    ),
    "another organization": (
        lambda home: set_option(home, "organization_id", f'"{NOBODY}"'),
        "key",
        "fleetprompt.organization_id",
    ),
    "another connector's key": (
        lambda home: set_option(home, "connector_id", f'"{NOBODY}"'),
        "key",
        NOBODY,
    ),
    "database damaged": (damage, "database", "backfill --since"),
    "queue full": (fill, "queue", "queue list"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_names_the_cause(home: Customer, name: str) -> None:
    plant, check, remedy = FAULTS[name]
    plant(home)
    code, told = home.command("doctor")
    assert code == 1, told
    bad = [one for one in told["checks"] if one["state"] == "bad"]
    assert bad[0]["name"] == check, told
    assert bad[0]["message"]
    assert re.search(remedy, bad[0]["remedy"]), bad[0]
    if name != "the key of the encrypted file is gone":
        assert len(bad) == 1, bad
