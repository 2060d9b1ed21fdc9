"""A directive, approved by a person, becomes one mail: no stub in platform, connector or servers."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.serving import Server
from tests.api.support import Keys, bearer
from tests.doubles.smtp import MailServer, running_smtp
from tests.edge.connecting import customer, until
from tests.edge.dovecot import PASSWORD, USER, Dovecot
from tests.edge.ingesting import CONNECTOR

pytestmark = pytest.mark.slow
OWN = "me@proton.me"


def _show(server: MailServer, bridge: Dovecot) -> None:
    """Do what Bridge does: put what was sent among the sent mail."""
    until(lambda: server.mails, "the mail")
    with bridge.client() as client:
        if not client.folder_exists("Sent"):
            client.create_folder("Sent")
        client.append("Sent", server.mails[0].message.as_bytes())


async def test_traps_4_and_5_an_approved_mail_is_sent_once_though_the_connector_is_killed(
    served: Server,
    settings: Settings,
    database: Database,
    tenant: Tenant,
    bridge: Dovecot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.doubles.smtp.USER", USER)
    monkeypatch.setattr("tests.doubles.smtp.PASSWORD", PASSWORD)
    keys = Keys(database, settings)
    key = await keys.connector(tenant, CONNECTOR)
    user_id = await keys.member(tenant, f"ada@{tenant.slug}.example.org", "owner")
    headers = bearer(await keys.user(tenant, user_id=user_id))

    def end_leases() -> None:
        """What a minute's waiting would do: nobody keeps the lease of a connector that is dead."""
        assert settings.database_url is not None
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            connection.execute(f"SET search_path TO {quote_identifier(tenant.schema)}")
            connection.execute(
                "UPDATE directives SET lease_expires_at = now() WHERE state = 'running'"
            )

    await asyncio.to_thread(_sent_once, served.url, headers, key, bridge, tmp_path, end_leases)


def _sent_once(
    url: str,
    headers: dict[str, str],
    key: str,
    bridge: Dovecot,
    folder: Path,
    end_leases: Callable[[], None],
) -> None:
    params = {"from": OWN, "to": ["ann@example.org"], "subject": "Hello", "text_body": "Text"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as ada:
        asked = ada.post(
            "/api/v1/directives",
            json={"type": "email.send", "params": params, "target": CONNECTOR},
            headers={"Idempotency-Key": "mail-1"},
        ).json()
        (waiting,) = ada.get("/api/v1/approvals").json()["items"]
        approved = ada.post(
            f"/api/v1/approvals/{waiting['id']}/approve", json={"hash": waiting["action_sha256"]}
        )
        assert approved.status_code == 200
        context = _context(bridge)
        with running_smtp(starttls=context, login=True) as smtp:
            made = customer(
                folder / "customer",
                bridge,
                url,
                key,
                bridge__smtp__port=smtp.port,
                sending__allowed_from_addresses=(OWN,),
            )
            with made.running() as process:
                # The connection ends in the place of Bridge's answer, and the process with it.
                smtp.drop = "DATA after"
                until(lambda: smtp.mails, "the mail")
                process.kill()
                process.wait(15)
            _show(smtp, bridge)
            end_leases()
            with made.running():
                found = _ended(ada, asked["id"])
        assert found["state"] == "succeeded"
        assert len(smtp.mails) == 1
        told = ada.get("/api/v1/signals", params={"type": "email.outbound.sent"}).json()["items"]
    assert [one["data"]["message_id"] for one in told] == [smtp.mails[0].message["Message-ID"]]
    assert PASSWORD not in made.log


def _context(bridge: Dovecot) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bridge.base / "cert.pem", bridge.base / "key.pem")
    return context


def _ended(ada: httpx.Client, directive_id: str) -> dict[str, Any]:
    def look() -> Any:
        found = ada.get(f"/api/v1/directives/{directive_id}").json()
        return found if found["state"] in ("succeeded", "failed", "unknown") else None

    return dict(until(look, "the end of the directive", 150))
