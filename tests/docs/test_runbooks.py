"""Whatever tells an operator that something is wrong names a page that says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetprompt_dagster.definitions import defs
from fleetprompt_dagster.runbooks import FOLDER, RUNS, runbook

# Dagster itself passes parameters that it marks as beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def pages(repository: Path) -> set[str]:
    return {path.stem for path in (repository / FOLDER).glob("*.md")} - {"README"}


def test_every_check_links_to_its_page(repository: Path) -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        metadata = (graph.get_check_spec(key).metadata or {}).get("runbook")
        assert metadata is not None, f"{key.name} has no runbook"
        assert (repository / str(metadata.value)).is_file(), key.name
        assert Path(str(metadata.value)).stem == key.name
    assert RUNS in pages(repository)


def test_every_alert_links_to_its_page(repository: Path) -> None:
    content: Any = yaml.safe_load((repository / "deploy/prometheus/alerts.yml").read_text())
    for rule in (rule for group in content["groups"] for rule in group["rules"]):
        page = rule["annotations"].get("runbook", "")
        assert page.startswith(f"{FOLDER}/"), rule["alert"]
        assert (repository / page).is_file(), rule["alert"]


def test_every_page_says_what_is_seen_what_it_means_and_what_to_do(repository: Path) -> None:
    index = (repository / FOLDER / "README.md").read_text()
    for name in pages(repository):
        page = (repository / FOLDER / f"{name}.md").read_text()
        assert f"`{name}`" in page
        for part in ("**Seen:**", "**It means:**", "**Do:**\n\n1. "):
            assert part in page, name
        for link in re.findall(r"\]\(([^)#]+)", page):
            assert (repository / FOLDER / link).exists(), f"{name}: {link}"
        assert f"]({name}.md)" in index, name


def test_published_runbooks_are_links(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetprompt.settings import get_settings

    monkeypatch.setenv("FLEETPROMPT_RUNBOOKS_URL", "https://docs.example.org/runbooks/")
    get_settings.cache_clear()
    try:
        value = runbook("failed_runs")["runbook"].value
    finally:
        get_settings.cache_clear()
    assert value == "https://docs.example.org/runbooks/failed_runs.md"
