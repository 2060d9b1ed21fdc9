"""What Prometheus reads: who may, what it holds, and what it never holds."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.telemetry import exposition
from fleetprompt.telemetry.catalogue import METRICS
from fleetprompt.tenants.service import Tenant
from tests.api.serving import serving
from tests.api.support import DIGEST, Keys, bearer, calling, problem_id

TOKEN = "a-token-for-prometheus-alone"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
async def measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """An application that serves metrics, each scrape fresh."""
    monkeypatch.setattr(exposition, "CACHE_SECONDS", 0.0)
    made = create_app(settings.model_copy(update={"metrics_token": SecretStr(TOKEN)}))
    async with made.router.lifespan_context(made):
        yield made


def _families(content: str) -> list[Metric]:
    return list(text_string_to_metric_families(content))  # type: ignore[no-untyped-call]


def read(content: str) -> Samples:
    """Every sample, by name and labels; a strict reader, so that what is no OpenMetrics fails."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in _families(content)
        for sample in family.samples
    }


async def scraped(app: FastAPI) -> Samples:
    async with calling(app, TOKEN) as client:
        answer = await client.get("/metrics", headers=OPENMETRICS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return read(answer.text)


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def signal(**rest: object) -> dict[str, object]:
    return {
        "type": "test.measured",
        "source": "test",
        "occurred_at": "2026-03-01T10:00:00Z",
        "data": {},
        **rest,
    }


async def test_without_a_token_in_the_settings_there_are_no_metrics(app: FastAPI) -> None:
    async with calling(app, TOKEN) as client:
        assert problem_id(await client.get("/metrics"), 404) == "not-found"


async def test_nobody_reads_them_without_the_operators_token(
    measured: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    for token in (None, "another-token-for-prometheus", TOKEN[:-1], await keys.user(tenant)):
        async with calling(measured, token) as client:
            assert problem_id(await client.get("/metrics"), 401) == "unauthenticated"


async def test_they_are_no_part_of_the_tenants_api(measured: FastAPI) -> None:
    assert "/metrics" not in measured.openapi()["paths"]


async def test_who_asks_for_no_openmetrics_gets_the_older_text(measured: FastAPI) -> None:
    async with calling(measured, TOKEN) as client:
        answer = await client.get("/metrics", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE fleetprompt_signals_stored_total counter" in answer.text


async def test_signals_are_counted_as_they_were_answered(
    measured: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    before = await scraped(measured)
    async with calling(measured, await keys.user(tenant)) as client:
        for _ in range(2):
            await client.post("/api/v1/signals", json=signal(dedupe_key="same"))
        await client.post("/api/v1/signals", json=[signal(), signal(), signal()])
        await client.post("/api/v1/signals", json=signal(type="No Type"))
        await client.post("/api/v1/signals?partial=true", json=[signal(), signal(source="!")])
        await client.post(
            "/api/v1/signals", content=b"{", headers={"content-type": "application/json"}
        )
    after = await scraped(measured)

    def added(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    assert added("fleetprompt_signals_stored_total", result="created") == 5
    assert added("fleetprompt_signals_stored_total", result="duplicate") == 1
    assert added("fleetprompt_ingest_refused_total", reason="invalid") == 2
    assert added("fleetprompt_ingest_refused_total", reason="malformed") == 1
    assert added("fleetprompt_ingest_flush_rows_sum") == 6
    answered = {"method": "POST", "route": "/api/v1/signals", "status": "2xx"}
    assert added("fleetprompt_http_request_duration_seconds_count", **answered) == 4
    refused = {**answered, "status": "4xx"}
    assert added("fleetprompt_http_request_duration_seconds_count", **refused) == 2


async def test_a_route_is_its_template_and_a_wrong_path_no_label(
    measured: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with calling(measured, await keys.user(tenant)) as client:
        await client.get(f"/api/v1/directives/{new_id()}")
        await client.get("/nowhere/else")
        await client.request("BREW", "/api/v1/me")
    samples = await scraped(measured)
    found = {
        (dict(labels)["method"], dict(labels)["route"])
        for name, labels in samples
        if name == "fleetprompt_http_request_duration_seconds_count"
    }
    assert ("GET", "/api/v1/directives/{directive_id}") in found
    assert ("GET", "unmatched") in found
    assert {method for method, _ in found} <= {
        "GET",
        "POST",
        "HEAD",
        "PUT",
        "PATCH",
        "DELETE",
        "other",
    }
    assert not any("nowhere" in route for _, route in found)


async def test_the_queue_shows_what_is_due_what_comes_later_and_what_runs(
    measured: FastAPI, database: Database, tenant: Tenant
) -> None:
    insert = text(
        "INSERT INTO fleetprompt.directive_queue"
        " (tenant_schema, directive_id, type, target, priority, due_at, busy)"
        " VALUES (:schema, :id, :type, :target, 0, now() - make_interval(secs => :age), :busy)"
    )
    rows = [
        ("digest.run", "platform", 100.0, False),
        ("digest.run", "platform", 40.0, True),  # its lease has run out
        ("digest.run", "platform", -40.0, True),
        ("digest.run", "platform", -500.0, False),
        ("digest.run", "laptop", 7.0, False),
        ("gone.type", "platform", 5.0, False),
    ]
    async with database.platform() as session:
        await session.execute(text("DELETE FROM fleetprompt.directive_queue"))
        for type_, target, age, busy in rows:
            values = {"type": type_, "target": target, "age": age, "busy": busy}
            await session.execute(insert, {"schema": tenant.schema, "id": new_id(), **values})
    try:
        samples = await scraped(measured)
    finally:
        async with database.platform() as session:
            await session.execute(text("DELETE FROM fleetprompt.directive_queue"))
    own = {"type": "digest.run", "target": "platform"}
    assert of(samples, "fleetprompt_directives_due", **own) == 2
    assert of(samples, "fleetprompt_directives_later", **own) == 1
    assert of(samples, "fleetprompt_directives_in_flight", **own) == 1
    assert 100 <= of(samples, "fleetprompt_directive_oldest_due_seconds", **own) < 160
    theirs = {"type": "digest.run", "target": "connector"}
    assert of(samples, "fleetprompt_directives_due", **theirs) == 1
    assert of(samples, "fleetprompt_directives_due", type="other", target="platform") == 1
    idle = ("fleetprompt_directives_due", (("target", "platform"), ("type", "package.install")))
    assert samples[idle] == 0


async def test_listeners_and_processes_are_seen(measured: FastAPI) -> None:
    samples = await scraped(measured)
    assert of(samples, "fleetprompt_processes", role="api") >= 1
    for channel in ("signals", "directives"):
        states = [
            of(samples, "fleetprompt_listeners", role="api", channel=channel, state=state)
            for state in ("up", "down")
        ]
        assert sum(states) >= 1
    assert of(samples, "fleetprompt_database_up") == 1


async def test_no_tenant_no_id_and_no_address_is_ever_a_label(
    measured: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    """research/platform.md, A6: tenants belong in logs and spans."""
    async with calling(measured, await keys.user(tenant)) as client:
        await client.post(f"/api/v1/packages/{DIGEST}/install")
        await client.post("/api/v1/signals", json=signal(subject_type="x", subject_id="canary-1"))
        await client.get("/api/v1/signals?type=canary.two")
    async with calling(measured, TOKEN) as client:
        content = (await client.get("/metrics", headers=OPENMETRICS)).text
    assert tenant.slug not in content
    assert "canary" not in content
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", content)
    assert "://" not in content
    families = {family.name: family for family in _families(content)}
    for name, family in families.items():
        metric = METRICS[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample


async def test_while_the_database_is_away_counters_stand_and_it_is_told(
    measured: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await scraped(measured)
    counters = {
        key: value for key, value in before.items() if key[0].endswith(("_total", "_count"))
    }

    def away() -> object:
        raise DatabaseUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(measured.state.platform.database, "platform", away)
        during = await scraped(measured)
    assert of(during, "fleetprompt_database_up") == 0
    assert all(during[key] >= value for key, value in counters.items())
    assert not any(name == "fleetprompt_directives_due" for name, _ in during)
    assert of(await scraped(measured), "fleetprompt_database_up") == 1


async def test_counts_outlive_the_process_that_made_them(
    settings: Settings, keys: Keys, tenant: Tenant, tmp_path: Path
) -> None:
    """A restart, and a second process behind the same address, never make a counter fall."""
    key, created = await keys.user(tenant), []
    for round_ in range(2):
        with serving(settings, tmp_path, FLEETPROMPT_METRICS_TOKEN=TOKEN) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
                for number in range(3):
                    answer = await client.post(
                        "/api/v1/signals",
                        json=signal(dedupe_key=f"{round_}-{number}"),
                        headers=bearer(key),
                    )
                    assert answer.status_code == 201
                page = await client.get("/metrics", headers={**bearer(TOKEN), **OPENMETRICS})
            samples = read(page.text)
            created.append(of(samples, "fleetprompt_signals_stored_total", result="created"))
            server.terminate()
    assert created[1] >= created[0] + 3
