"""The main path, over HTTP alone, as the README shows it with curl.

Create a tenant and its key, send signals, install the digest, connect the webhook, configure zone
and time, run now, and read what happened. Every step may be repeated: the second time it finds
what the first one made.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from demo.sample import signals

PACKAGE = "mattermost_daily_ops_digest"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """What the story ends with."""

    digest: str
    execution: dict[str, Any]
    directive: dict[str, Any]
    signal_types: list[str]
    already_posted: bool
    run_now_seconds: float


class Api:
    """The API with one key; an answer that is no 2xx is an error that shows the problem."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def call(self, method: str, path: str, **rest: Any) -> Any:
        """The JSON of the answer."""
        answer = self._client.request(method, path, **rest)
        if not answer.is_success:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def owner_email(slug: str) -> str:
    """The address of the person who owns a sample tenant."""
    return f"owner@{slug}.example.org"


def create_tenant(operator: Api, slug: str, name: str) -> str:
    """A new tenant's owner key."""
    made = operator.call(
        "POST",
        "/api/v1/tenants",
        json={"slug": slug, "name": name, "owner_email": owner_email(slug)},
    )
    return str(made["owner_key"]["token"])


def tell(api: Api, slug: str, hook_url: str, zone: str, say: Say) -> Told:
    """Take one tenant from nothing to its first digest; posts nothing that was posted before."""
    stored = api.call("POST", "/api/v1/signals", json=signals(slug))
    say(f"{slug}: {stored['created']} signals stored, {stored['duplicates']} known already")

    installation = _install(api, say)
    address = f"/api/v1/installations/{installation['id']}"
    if installation["state"] != "connected":
        api.call(
            "POST",
            f"{address}/connections",
            json={"kind": "mattermost", "url": hook_url},
        )
        say(f"{slug}: Mattermost is connected")
    _configure(api, address, zone, say)

    begun = time.monotonic()
    run = api.call("POST", f"{address}/run", headers={"Idempotency-Key": f"first-digest-{slug}"})
    already = run["state"] == "succeeded"
    execution = _wait_for_execution(api, run["execution_id"])
    seconds = time.monotonic() - begun
    correlation = execution["correlation_id"]
    found = api.call("GET", "/api/v1/signals", params={"correlation_id": correlation, "limit": 50})
    return Told(
        digest=str((execution["result"] or {}).get("text", "")),
        execution=execution,
        directive=api.call("GET", f"/api/v1/directives/{run['directive_id']}"),
        signal_types=[signal["type"] for signal in reversed(found["items"])],
        already_posted=already,
        run_now_seconds=seconds,
    )


def _install(api: Api, say: Say) -> dict[str, Any]:
    listed = api.call("GET", "/api/v1/installations")["items"]
    found = next((one["id"] for one in listed if one["package"] == PACKAGE), None)
    if found is None:
        made = api.call("POST", f"/api/v1/packages/{PACKAGE}/install", json={})
        say(f"installing {PACKAGE} (directive {made['directive_id']})")
        found = made["installation_id"]
    return _wait(
        lambda: api.call("GET", f"/api/v1/installations/{found}"),
        lambda installation: installation["state"] not in ("requested", "queued"),
        "the installation",
    )


def _configure(api: Api, address: str, zone: str, say: Say) -> None:
    current = api.call("GET", address)["config"]
    wanted = {"timezone": zone, "schedule_time": "08:00", "include_cost_estimates": True}
    if wanted.items() <= current.items():
        return
    answer = api.call("PUT", f"{address}/config", json={"config": {**current, **wanted}})
    _wait(
        lambda: api.call("GET", f"/api/v1/directives/{answer['directive_id']}"),
        lambda found: found["state"] == "succeeded",
        "the configuration",
    )
    say(f"the digest is due each day at 08:00 {zone}")


def _wait_for_execution(api: Api, execution_id: str) -> dict[str, Any]:
    found = _wait(
        lambda: api.call("GET", f"/api/v1/executions/{execution_id}"),
        lambda execution: execution["state"] in ("completed", "failed", "cancelled"),
        "the digest",
    )
    if found["state"] != "completed":
        raise RuntimeError(f"the digest ended as {found['state']}: {found['error_message']}")
    return found


def _wait(
    ask: Callable[[], Any], enough: Callable[[Any], bool], what: str, seconds: float = 90
) -> dict[str, Any]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = ask()
        if enough(found):
            return dict(found)
        time.sleep(0.2)
    raise RuntimeError(f"{what} did not come within {seconds:.0f} s; see the log")
