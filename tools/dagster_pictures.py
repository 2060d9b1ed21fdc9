"""Takes the pictures of Dagster for the operator's guide: ``python -m tools.dagster_pictures``.

Starts a platform of its own in a temporary folder, gives four tenants a week of signals, breaks one file
of the lake so that a check fails, and photographs the UI in a browser: Debian's Chromium, or the one that
Playwright installed. Some minutes; nothing is left running.
"""

import argparse
import asyncio
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from demo.sample import signals
from demo.story import Api, create_tenant
from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.layout import day_file
from fleetprompt.runtime.platform import Platform, running_platform
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import get_tenant
from tests.e2e.dagster_pages import DagsterPages, wait
from tests.ports import free_port

FOLDER = Path(__file__).parent.parent / "docs" / "images"
TENANTS = ("acme", "bay", "harbor", "northwind")
DAYS = 7
# As the graph's address names groups that are open: those that depend on each other.
_GROUPS = ",".join(f"global@global:{group}" for group in ("conversations", "digests", "signals"))
_COLOURS = 256
_LARGEST_BYTES = 150_000
_PATIENCE_MS = 120_000


def main() -> None:
    """Read the argument, start the platform, take the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.dagster_pictures", description=__doc__)
    parser.add_argument("--into", type=Path, default=FOLDER, help="folder of the pictures")
    into = parser.parse_args().into
    today = datetime.now(UTC).date()
    with (
        tempfile.TemporaryDirectory(prefix="fleetprompt-pictures-") as folder,
        running_platform(_settings(Path(folder)), log_stream=io.StringIO()) as platform,
    ):
        pages = DagsterPages(platform.urls["dagster"])
        _furnish(platform, pages, today)
        _break_a_day(platform, pages, today - timedelta(days=2))
        pages.close()
        with _browser() as browser:
            _photograph(browser, platform.urls["dagster"], today, into)


def _settings(folder: Path) -> Settings:
    return Settings(
        state_dir=folder,
        api_port=free_port(),
        dagster_port=free_port(),
        code_server_port=free_port(),
        log_format="json",
        database_url=None,
    )


def _furnish(platform: Platform, pages: DagsterPages, today: date) -> None:
    """Four tenants with a week of signals, written to the lake; nobody is asked for a newsletter."""
    pages.ask("mutation { setNuxSeen }")
    operator = Api(platform.urls["api"], asyncio.run(_operator_key(platform.settings)))
    now = datetime.now(UTC)
    for number, slug in enumerate(TENANTS):
        api = Api(platform.urls["api"], create_tenant(operator, slug, slug.title()))
        for ago in range(DAYS):
            # Days differ, as they do.
            told = signals(slug, now - timedelta(days=ago))[: 6 + (5 * number + 3 * ago) % 13]
            api.call("POST", "/api/v1/signals", json=told)
        api.close()
    operator.close()
    days = [(today - timedelta(days=ago)).isoformat() for ago in range(DAYS)]
    keys = [f"{day}|{slug}" for day in days for slug in TENANTS]
    wait("the tenants in the grid", lambda: _in_grid(pages) >= len(TENANTS))
    assets = ["signals", "daily_counts", "conversations"]
    ended = pages.backfill_ended(pages.backfill(assets, keys))
    _require(ended["status"] == "COMPLETED_SUCCESS", f"the backfill: {ended}")


async def _operator_key(settings: Settings) -> str:
    async with Database.application(settings) as database, database.platform() as session:
        tenant = await get_tenant(session, settings.operations_tenant)
        request = KeyRequest(kind="user", name="pictures", role="owner")
        return (await issue_key(session, settings, tenant, request))[1]


def _in_grid(pages: DagsterPages) -> int:
    query = """{ assetNodeOrError(assetKey: {path: ["signals"]}) { ... on AssetNode {
      partitionKeysByDimension { name partitionKeys } } } }"""
    found = pages.ask(query)["assetNodeOrError"]["partitionKeysByDimension"]
    [tenants] = [one["partitionKeys"] for one in found if one["name"] == "tenant"]
    return len(set(tenants) & set(TENANTS))


def _break_a_day(platform: Platform, pages: DagsterPages, day: date) -> None:
    """Lose a tenant's file of a day, as a clumsy hand would, and have every check run."""
    day_file(platform.settings.lake, SIGNALS, "acme", day).unlink()
    launched = pages.launch("check_everything", {})
    ended = pages.run_ended(launched["run"]["runId"])
    _require(ended.status == "SUCCESS", f"the checks' run: {ended}")


@contextmanager
def _browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _photograph(browser: Browser, url: str, today: date, into: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(_PATIENCE_MS)

    _open(page, f"{url}/asset-groups?expanded={_GROUPS}", 1600, 1150)
    page.get_by_text("2 / 3 Passed").last.wait_for()
    _keep(page, into / "dagster-assets.png")

    _open(page, f"{url}/assets/signals?view=partitions&partition={today}%7Cacme", 1280, 1050)
    page.locator("img[src^='data:image/png']").first.wait_for()
    _keep(page, into / "signals-partitions.png")

    _open(page, f"{url}/assets/signals?view=overview", 1280, 800)
    plots = page.get_by_text("Plots", exact=True).first
    plots.click()
    page.get_by_text("late_rows", exact=True).first.wait_for()
    page.get_by_text("Metadata", exact=True).first.evaluate("it => it.scrollIntoView()")
    _keep(page, into / "dagster-plots.png")

    check = "signals_match_postgresql"
    _open(page, f"{url}/assets/signal_store?view=checks&checkDetail={check}", 1280, 800)
    page.get_by_text("1 days differ").first.wait_for()
    _keep(page, into / "dagster-failed-check.png")


def _open(page: Page, address: str, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.goto(address)


def _keep(page: Page, path: Path) -> None:
    """The page as it is now, with few colours: of flat pages they lose nothing that is seen."""
    # Charts and the graph come in gently.
    page.wait_for_timeout(4000)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    few = picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)
    size = path.stat().st_size
    _require(size <= _LARGEST_BYTES, f"{path} has {size:,} bytes")
    print(f"{path.name}: {size:,} bytes")


def _require(ok: bool, what: str) -> None:
    if not ok:
        raise RuntimeError(what)


if __name__ == "__main__":
    main()
