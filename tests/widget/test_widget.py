"""The widget's own tests and its build, from a clean checkout, as part of the whole suite."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.widget.checkout import WIDGET, run

pytestmark = pytest.mark.slow

LANGUAGES = {"ar", "de", "en", "es", "fr", "ja"}
LOADER = 1024
ALL = 8 * 1024


def test_the_widgets_own_tests_pass(widget: Path) -> None:
    told = run(widget, "npm", "test")
    passed = re.search(r"^(?:#|ℹ) pass (\d+)$", told, re.MULTILINE)
    assert passed is not None, told
    assert int(passed[1]) > 0
    for trap in ("trap 27", "trap 34"):  # no emoji; waits that are spread after an outage
        assert trap in told


def test_the_loader_is_at_most_1_kb_and_everything_8_kb(built: Path) -> None:
    loader = len(gzip.compress((built / "loader.js").read_bytes(), 9))
    assert loader <= LOADER
    chats = {path.name.split(".")[1]: path for path in built.glob("chat.*.js")}
    assert set(chats) == LANGUAGES
    for language, path in chats.items():
        assert loader + len(gzip.compress(path.read_bytes(), 9)) <= ALL, language


def test_the_build_reports_what_the_loader_and_every_language_weigh(build_report: str) -> None:
    assert re.search(r"^loader +\d+ B gzip of 1024 B", build_report, re.MULTILINE), build_report
    told = re.findall(r"^with (\w\w) +\d+ B gzip of 8192 B", build_report, re.MULTILINE)
    assert set(told) == LANGUAGES


def test_trap_53_the_manifest_names_each_file_with_its_integrity(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    files = [manifest["loader"], *manifest["chat"].values()]
    assert len({one["file"] for one in files}) == len(LANGUAGES) + 1
    for one in files:
        content = (built / one["file"]).read_bytes()
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        assert one["integrity"] == f"sha384-{digest}"
        assert one["bytes"] == len(content)
        assert re.search(r"\.[0-9a-f]{8}\.js$", one["file"])
    stable = (built / manifest["loader"]["stable"]).read_bytes()
    assert stable == (built / manifest["loader"]["file"]).read_bytes()


def test_the_bundles_import_nothing_but_the_loader_the_chat(built: Path) -> None:
    for path in built.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"\bfrom\s*[\"']", text), path.name
        assert len(re.findall(r"\bimport\(", text)) == path.name.startswith("loader")


def test_a_bundle_over_budget_fails_the_build(widget: Path) -> None:
    script = (widget / "build.mjs").read_text()
    tight = widget / "tight.mjs"
    script = script.replace("ALL = 8 * 1024", "ALL = 100")
    tight.write_text(script.replace('await readdir("src/strings")', '["en.ts"]'))
    result = subprocess.run(
        ["node", tight.name, "--size"],
        cwd=widget,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "over budget" in result.stderr
    assert re.findall(r"^with (\w\w)", result.stdout, re.MULTILINE) == ["en"]


def test_the_versions_are_exact_and_the_lock_names_no_registry() -> None:
    manifest = json.loads((WIDGET / "package.json").read_text())
    assert manifest["private"] is True
    assert "dependencies" not in manifest
    for name, version in manifest["devDependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
    lock = (WIDGET / "package-lock.json").read_text()
    assert "http" not in lock
    locked = json.loads(lock)["packages"]
    assert all("integrity" in entry for path, entry in locked.items() if path)


def test_no_name_that_the_build_shortens_is_sent_stored_or_called_from_outside() -> None:
    built = re.search(r'PRIVATE =\s+"([^"]+)"', (WIDGET / "build.mjs").read_text())
    assert built is not None
    contract = (WIDGET.parent / "docs/reference/webchat-api.md").read_text()
    sent = set(re.findall(r'"(\w+)":?[,} ]', contract))
    assert {"client_message_id", "visitor", "last_seq"} <= sent
    sources = "".join((WIDGET / f"src/{name}.ts").read_text() for name in ("kept", "outbox"))
    kept = re.findall(r"export interface (?:Kept|Waiting|Contact) \{(.*?)\n\}", sources, re.DOTALL)
    stored = set(re.findall(r"readonly (\w+)\??:", "".join(kept)))
    assert {"outbox", "refusal", "email", "seq"} <= stored
    called = {"open", "close", "toggle", "reset", "resume", "identify", "happening", "id"}
    assert set(built[1].split()) & (sent | stored | called) == set()
