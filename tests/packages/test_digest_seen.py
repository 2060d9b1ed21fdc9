"""What a person sees in the channel is what the ledger says was posted."""

import shutil

from playwright.async_api import async_playwright

from fleetprompt.packages.digest.chart import HEIGHT, WIDTH
from fleetprompt.signals.emit import NewSignal, emit
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import Platform, connected_as


async def test_a_browser_shows_the_post_that_the_ledger_says_was_made(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 15 too: hostile text is neither markup nor a mention where people read it."""
    hostile = '@all <!channel> | `x` <script>document.title="owned"</script> [a](javascript:b)'
    installation = await connected_as(platform, mattermost, "bot")
    async with platform.database.tenant(platform.tenant.schema) as session:
        for number in range(3):
            data = {"error_kind": "network", "error_message": hostile, "job": f"sync {hostile}"}
            await emit(session, NewSignal(type=f"shop.sync_{number}.failed", data=data))
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    (entry,) = await platform.ledger()
    assert entry.state == "posted"
    kept = (await platform.execution(execution.id)).result
    assert kept is not None
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(mattermost.url)
        post = page.locator("li.post")
        assert await post.count() == 1
        headline = await post.locator("h4").inner_text()
        rows = [await row.inner_text() for row in await post.locator("tbody tr").all()]
        links = [await link.get_attribute("href") for link in await post.locator("a").all()]
        tags = await post.locator(".tag").all_inner_texts()
        picture = post.locator("figure img")
        name = await picture.get_attribute("alt")
        size = await picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        title = await page.title()
        await browser.close()
    assert "3 errors" in headline
    assert headline.strip("# ") in kept["text"].splitlines()[0].replace("\\", "")
    assert sorted(row.split("\t")[1].split(" ")[0] for row in rows) == [
        f"shop.sync_{number}.failed" for number in range(3)
    ]
    assert all("‹script›" in row for row in rows)
    assert links
    assert all(str(link).startswith("http://127.0.0.1") for link in links), links
    assert not any("PINGS" in tag for tag in tags)
    assert title != "owned"
    assert size == [WIDTH, HEIGHT], "the browser shows the picture"
    assert name == f"Signals above, errors below, until {kept['bars'][-1]['day']}.png"
