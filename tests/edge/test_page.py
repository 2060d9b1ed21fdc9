"""The status page: on this machine only, for who has its address, and for nobody's script."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fleetprompt_edge.page.server import Page
from fleetprompt_edge.places import state_folder
from fleetprompt_edge.reading import load
from fleetprompt_edge.store import Store

from tests.edge.connecting import Customer
from tests.edge.in_process import alone, command, without_keyring

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def home(tmp_path: Path) -> Customer:
    without_keyring()
    made = alone(tmp_path / "home")
    with Store(made.state) as store, store.transaction():
        problem = {"place": "bridge", "code": "x", "message": HOSTILE, "remedy": "Mend it."}
        store.notes.put("problem:bridge", json.dumps(problem))
        store.notes.put("last_poll:INBOX", "2026-01-06T09:00:00Z")
    return made


@pytest.fixture
def page(home: Customer) -> Iterator[Page]:
    profile, _ = load(home.profile)
    made = Page(profile, state_folder(profile))
    serving = threading.Thread(target=made.serve)
    serving.start()
    try:
        yield made
    finally:
        made.stop()
        serving.join()
        made.close()


def test_the_page_says_what_is_wrong_and_how_to_mend_it_and_runs_nothing(page: Page) -> None:
    answer = httpx.get(page.url)
    assert answer.status_code == 200
    assert "2 things are not well" in answer.text
    assert "It is not running." in answer.text
    assert "Mend it." in answer.text
    assert HOSTILE not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "2026-01-06 09:00:00 UTC" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_checks_can_be_run_from_the_page(page: Page) -> None:
    answer = httpx.get(page.url + "checks", timeout=60)
    assert answer.status_code == 200
    assert "bridge port: Nothing listens" in answer.text
    assert "Start Bridge" in answer.text


def test_only_its_address_leads_to_the_page(page: Page) -> None:
    """A guess, another name for this machine (DNS rebinding), and anything that would change something."""
    assert page.url.startswith("http://127.0.0.1:")
    for path in ("", "x/", f"{'a' * 43}/", "%00/", "ä/"):
        assert httpx.get(f"http://{page.host}/{path}").status_code == 404
    assert httpx.get(page.url + "profile").status_code == 404
    for name in ("attacker.example", page.host.replace("127.0.0.1", "localhost")):
        assert httpx.get(page.url, headers={"Host": name}).status_code == 404
    assert (
        httpx.get(
            page.url, headers={"Host": page.host.replace("127.0.0.1", "localhost")}
        ).status_code
        == 404
    )
    assert httpx.post(page.url).status_code == 501


def test_a_database_that_cannot_be_read_is_said_on_the_page(page: Page, home: Customer) -> None:
    (home.state / "connector.sqlite3").write_bytes(b"\xff" * 8192)
    answer = httpx.get(page.url)
    assert answer.status_code == 500
    assert "damaged" in answer.text


@pytest.mark.slow
def test_the_command_prints_the_address_and_ends_with_a_signal(home: Customer) -> None:
    line = [
        sys.executable,
        "-m",
        "fleetprompt_edge",
        "status",
        "--page",
        "--profile",
        str(home.profile),
    ]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env=home.environment()
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert httpx.get(url).status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("minutes", ["0", "1441", "soon", "-1"])
def test_a_page_lasts_a_day_at_most(
    home: Customer, minutes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(home.profile, "status", "--page", "--minutes", minutes)
