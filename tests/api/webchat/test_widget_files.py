"""The widget's files as pages load them, and the lines that load them."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from fleetprompt_api.app import create_app

from fleetprompt.settings import Settings
from fleetprompt.webchat.models import ChatSite
from tests.api.support import calling, problem_id

LOADER = b"(()=>{/* the loader */})();" * 40
CHAT = b"export const mount = 1;" * 200


def build(folder: Path, loader: bytes = LOADER) -> dict[str, str]:
    """A build of the widget; the names of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "pinned": f"loader.{hashlib.sha256(loader).hexdigest()[:8]}.js",
        "en": f"chat.en.{hashlib.sha256(CHAT).hexdigest()[:8]}.js",
        "ar": f"chat.ar.{hashlib.sha256(CHAT).hexdigest()[:8]}.js",
    }
    for name, content in ((names["pinned"], loader), (names["en"], CHAT), (names["ar"], CHAT)):
        (folder / name).write_bytes(content)
    manifest = {
        "loader": {"file": names["pinned"], "stable": "loader.js"},
        "chat": {language: {"file": names[language]} for language in ("en", "ar")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dist"


@pytest.fixture
async def client(settings: Settings, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"widget_dir": folder}))
    async with app.router.lifespan_context(app), calling(app) as found:
        yield found


async def test_trap_53_the_loader_is_asked_for_again_and_what_it_loads_is_kept_for_ever(
    client: httpx.AsyncClient, folder: Path
) -> None:
    names = build(folder)
    loader = await client.get("/widget/v1/loader.js")
    assert loader.content == LOADER
    assert loader.headers["cache-control"] == "public, max-age=300"
    for name, content in ((names["pinned"], LOADER), (names["en"], CHAT)):
        kept = await client.get(f"/widget/v1/{name}")
        assert kept.content == content
        assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"

    known = {"If-None-Match": loader.headers["etag"]}
    again = await client.get("/widget/v1/loader.js", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == loader.headers["etag"]

    repaired = LOADER + b"/* mended */"
    later = build(folder, repaired)
    answer = await client.get("/widget/v1/loader.js", headers=known)
    assert (answer.status_code, answer.content) == (200, repaired)
    assert problem_id(await client.get(f"/widget/v1/{names['pinned']}"), 404) == "not-found"
    assert (await client.get(f"/widget/v1/{later['pinned']}")).content == repaired


async def test_an_old_loader_gets_the_present_chat_of_its_language(
    client: httpx.AsyncClient, folder: Path
) -> None:
    build(folder)
    old = await client.get("/widget/v1/chat.ar.00000000.js")
    assert old.content == CHAT
    assert old.headers["cache-control"] == "public, max-age=300"
    for name in ("chat.xx.00000000.js", "chat.ar.js", "manifest.json", "..%2Fmanifest.json"):
        assert problem_id(await client.get(f"/widget/v1/{name}"), 404) == "not-found"


async def test_any_page_may_load_them_and_nobody_guesses_what_they_are(
    client: httpx.AsyncClient, folder: Path
) -> None:
    names = build(folder)
    for name in ("loader.js", *names.values()):
        for answer in (
            await client.get(f"/widget/v1/{name}"),
            await client.head(f"/widget/v1/{name}"),
        ):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers.get_list("cross-origin-resource-policy") == ["cross-origin"]
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_they_are_compressed_where_that_is_understood(
    client: httpx.AsyncClient, folder: Path
) -> None:
    build(folder)
    for accepted, compressed in (
        *(("gzip", True), ("br;q=1, GZIP;q=0.5", True), ("identity", False), ("", False)),
        *(("gzip;q=0", False), ("gzip; q=0.000", False), ("x-gzip", False)),
    ):
        headers = {"Accept-Encoding": accepted}
        async with client.stream("GET", "/widget/v1/loader.js", headers=headers) as answer:
            raw = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers["vary"] == "Accept-Encoding"
        assert (answer.headers.get("content-encoding") == "gzip") is compressed, accepted
        assert (gzip.decompress(raw) if compressed else raw) == LOADER
        assert answer.headers["etag"].endswith('-gzip"') is compressed


async def test_a_server_without_the_widget_says_how_to_build_it(
    client: httpx.AsyncClient, folder: Path
) -> None:
    answer = await client.get("/widget/v1/loader.js")
    assert problem_id(answer, 404) == "not-found"
    assert "npm run build" in answer.json()["detail"]
    build(folder)
    assert (await client.get("/widget/v1/loader.js")).status_code == 200


async def test_the_snippet_is_the_sites_own_and_its_pinned_form_is_checked_by_browsers(
    client: httpx.AsyncClient, folder: Path, site: ChatSite, owner_client: httpx.AsyncClient
) -> None:
    client.headers["authorization"] = owner_client.headers["authorization"]
    address = f"/api/v1/webchat/sites/{site.id}"
    assert (await client.get(address)).json()["links"]["snippet"] == f"{address}/snippet"
    without = (await client.get(f"{address}/snippet")).json()
    assert without["pinned_html"] is None

    names = build(folder)
    found = (await client.get(f"{address}/snippet")).json()
    newest, pinned = _script(found["html"]), _script(found["pinned_html"])
    assert newest["data-site"] == pinned["data-site"] == site.site_key
    assert newest["src"].endswith("/widget/v1/loader.js")
    assert pinned["src"].endswith(f"/widget/v1/{names['pinned']}")
    digest = base64.b64encode(hashlib.sha384(LOADER).digest()).decode()
    assert pinned["integrity"] == found["integrity"] == f"sha384-{digest}"
    assert pinned["crossorigin"] == "anonymous"
    assert f'href="{found["plain_page"]}"' in found["html"]
    assert re.search(r"/chat/fp_pub_\w+$", found["plain_page"])


class _Attributes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.script: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.script = {name: value or "" for name, value in attrs}


def _script(html: str) -> dict[str, str]:
    parser = _Attributes()
    parser.feed(html)
    return parser.script
