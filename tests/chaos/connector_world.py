"""Everything that runs while the connector is tried, and people who use it."""

import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import httpx
import psycopg

from fleetprompt.db.engine import quote_identifier
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.chaos.kills import ApiProcess
from tests.edge.connecting import Customer
from tests.edge.dovecot import Dovecot
from tests.edge.ingesting import CONNECTOR


class World:
    """Everything that runs. ``server`` is None where PostgreSQL is another's and is left alone.

    ``leases_end_at_once``: do not wait for the leases of a connector that was killed, which is all that a
    minute's waiting would change. ``hurry``: how many times as fast the connector's pauses pass.
    """

    leases_end_at_once = False
    hurry = 1.0

    def __init__(
        self,
        settings: Settings,
        server: EmbeddedPostgres | None,
        tenant: Tenant,
        bridge: Dovecot,
        api: ApiProcess,
        made: Customer,
    ) -> None:
        assert settings.database_url is not None
        self.url = settings.database_url.get_secret_value()
        self.schema = quote_identifier(tenant.schema)
        self.server = server
        self.bridge = bridge
        self.api = api
        self.customer = made
        self._connector: subprocess.Popen[bytes] | None = None

    def start_connector(self) -> None:
        """Start it; a second or two until it looks."""
        program = ["fleetprompt_edge"]
        if self.hurry != 1.0:
            program = ["tests.chaos.hurried_connector", str(self.hurry)]
        with (self.customer.folder / "log").open("ab") as log:
            self._connector = subprocess.Popen(
                [
                    *(sys.executable, "-m", *program, "run"),
                    *("--profile", str(self.customer.profile)),
                ],
                env=self.customer.environment(),
                stdout=log,
                stderr=log,
            )

    def kill_connector(self) -> None:
        """SIGKILL."""
        if self._connector is not None:
            self._connector.kill()
            self._connector.wait(30)

    def kill(self, victim: str, down: float) -> None:
        """SIGKILL, and a start after so many seconds."""
        if victim == "connector":
            self.kill_connector()
            if self.leases_end_at_once:
                self.rows(
                    "UPDATE {schema}.directives SET lease_expires_at = now()"
                    " WHERE state = 'running' RETURNING id"
                )
            time.sleep(down)
            self.start_connector()
        elif victim == "dovecot":
            self.bridge.kill()
            time.sleep(down)
            self.bridge.start()
        elif victim == "api":
            self.api.kill()
            time.sleep(down)
            self.api.start()
        elif self.server is not None:
            self.server.kill()
            time.sleep(down)
            self.server.start()

    def rows(self, query: str) -> list[tuple[Any, ...]] | None:
        """Of a query on the tenant's tables; None while the database is away."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url) as connection:
            # The tables' triggers look for others beside them.
            connection.execute(f"SET search_path TO {self.schema}".encode())
            # Only ever constants of these files.
            return connection.execute(query.format(schema=self.schema).encode()).fetchall()
        return None


class Asking:
    """People who ask for mails and approve them, whatever is down at the moment."""

    def __init__(self, url: str, headers: dict[str, str], count: int, seconds: float) -> None:
        self.asked: list[str] = []
        self._url = url
        self._headers = headers
        self._count = count
        self._pause = seconds / count if count else 0.0
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End it, also in the middle."""
        self._stop.set()
        self.thread.join(60)

    def _run(self) -> None:
        try:
            with httpx.Client(base_url=self._url, headers=self._headers, timeout=20) as client:
                for number in range(self._count):
                    self._one(client, number)
                    self._stop.wait(self._pause)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.failure = error

    def _one(self, client: httpx.Client, number: int) -> None:
        params = {"to": ["ann@example.org"], "subject": f"Mail {number}", "text_body": f"{number}"}
        asked = self._call(
            client,
            "/api/v1/directives",
            {"type": "email.send", "params": params, "target": CONNECTOR},
            {"Idempotency-Key": f"mail-{number}"},
        )
        self.asked.append(asked["id"])
        waiting = self._call(client, f"/api/v1/approvals?directive_id={asked['id']}")
        for one in waiting["items"]:
            if one["directive_id"] == asked["id"]:
                path = f"/api/v1/approvals/{one['id']}/approve"
                self._call(client, path, {"hash": one["action_sha256"]})

    def _call(
        self,
        client: httpx.Client,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        while not self._stop.is_set():
            with suppress(httpx.HTTPError):
                method = "GET" if body is None else "POST"
                answer = client.request(method, path, json=body, headers=headers)
                # Approved already: the answer to the first call was lost.
                if answer.is_success or answer.status_code == 409:
                    return answer.json()
                if answer.status_code < 500 and answer.status_code != 429:
                    raise AssertionError(f"{path}: {answer.status_code} {answer.text}")
            self._stop.wait(0.3)
        raise SystemExit
