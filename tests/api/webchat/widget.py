"""A widget as the API sees it: what it sends, and the secrets that it keeps."""

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.registration import register
from fleetprompt.webchat.site_settings import SiteSettings
from tests.api.support import problem_id

ORIGIN = "https://shop.example"
API = "/api/webchat/v1"


async def make_site(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    *,
    origins: tuple[str, ...] = (ORIGIN,),
    **values: Any,
) -> ChatSite:
    """A site of the tenant with these settings."""
    vault = Vault(database, load_master_key(settings))
    data_key = await vault.current_key(tenant)
    async with database.tenant(tenant.schema) as session:
        site, _ = await register(
            session,
            tenant,
            data_key,
            site_id=new_id(),
            name="Nordwind Shop",
            origins=origins,
            settings=SiteSettings.model_validate(values),
        )
    return site


@dataclass
class Widget:
    """One visitor's page; ``headers`` may be changed to lie."""

    client: httpx.AsyncClient
    site_key: str
    origin: str = ORIGIN
    headers: dict[str, str] = field(default_factory=dict)
    token: str = ""
    visitor: str | None = None
    conversation: str = ""

    def sent_headers(self, **more: str) -> dict[str, str]:
        """What goes with every request."""
        given = {"Origin": self.origin, "Webchat-Site": self.site_key, **self.headers, **more}
        if self.token:
            given["Authorization"] = f"Bearer {self.token}"
        return given

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Ask for a change."""
        return await self.client.post(
            f"{API}/{path}", json={} if body is None else body, headers=self.sent_headers(**headers)
        )

    async def get(self, path: str, **query: Any) -> httpx.Response:
        """Ask for what there is."""
        return await self.client.get(f"{API}/{path}", params=query, headers=self.sent_headers())

    async def bootstrap(self, **body: Any) -> dict[str, Any]:
        """Fetch a token, as the same visitor where there is one."""
        self.token = ""
        known = {} if self.visitor is None else {"visitor": self.visitor}
        answer = await self.post("bootstrap", {**known, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        self.token, self.visitor = found["token"], found["visitor"]
        return found

    async def begin(self, **body: Any) -> dict[str, Any]:
        """Have a token and an open conversation."""
        if not self.token:
            await self.bootstrap()
        answer = await self.post("sessions", body)
        if answer.status_code == 403 and problem_id(answer, 403) == "challenge-required":
            proof = solve(answer.json()["challenge"])
            answer = await self.post("sessions", body, **{"Webchat-Challenge": proof})
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        self.conversation = found["conversation"]["id"]
        return found

    async def say(self, text: str, client_id: str | None = None, **headers: str) -> httpx.Response:
        """Send one message."""
        body = {
            "conversation_id": self.conversation,
            "client_message_id": client_id or str(uuid4()),
            "text": text,
        }
        return await self.post("messages", body, **headers)

    async def texts(self) -> list[str]:
        """Every message's text, read back in pages."""
        found: list[str] = []
        after, more = 0, True
        while more:
            page = (
                await self.get("messages", conversation_id=self.conversation, after=after)
            ).json()
            assert [m["seq"] for m in page["messages"]] == [
                *range(after + 1, after + 1 + len(page["messages"]))
            ]
            found += [m["text"] for m in page["messages"]]
            after, more = len(found), page["more"]
        return found


def solve(challenge: dict[str, Any]) -> str:
    """The answer to a challenge of work."""
    number = 0
    while True:
        answer = f"{challenge['nonce']}:{number}"
        digest = int.from_bytes(hashlib.sha256(answer.encode()).digest())
        if digest >> (256 - challenge["bits"]) == 0:
            return answer
        number += 1


def later(seconds: float) -> Clock:
    """A clock that stands so many seconds ahead."""
    return lambda: system_clock() + timedelta(seconds=seconds)
