"""A Dagster instance that persists, the code location bound to the test's platform, and signals."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import pytest
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from fleetprompt_dagster.definitions import build_defs
from fleetprompt_dagster.resources import PlatformResource

Result = TypeVar("Result")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dagster itself passes parameters that it marks as beta."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::dagster.BetaWarning"))


@dataclass
class Bench:
    """The code location on the test's platform, with a clock that tests set."""

    settings: Settings
    instance: dg.DagsterInstance
    now: Callable[[], datetime] = field(default=system_clock)

    def __post_init__(self) -> None:
        bench = self

        class BoundPlatform(PlatformResource):
            """The test's settings and clock."""

            def settings(self) -> Settings:
                return bench.settings

            def now(self) -> datetime:
                return bench.now()

        self.platform = BoundPlatform(patience_seconds=0.0)
        self.defs = build_defs({"platform": self.platform})

    def run(self, work: Callable[[Database], Awaitable[Result]]) -> Result:
        """One piece of work on the test's database."""
        return self.platform.run(work)

    def tenant(self, slug: str | None = None) -> Tenant:
        """A new tenant."""
        slug = slug or f"t{new_id().hex[-12:]}"
        return asyncio.run(create_tenant(self.settings, slug=slug, name=slug))

    def add_partitions(self, *tenants: Tenant) -> None:
        """Make the tenants known to the grid."""
        self.instance.add_dynamic_partitions("tenants", [tenant.slug for tenant in tenants])

    def sensor(self, name: str, cursor: str | None = None) -> Any:
        """One evaluation: what the sensor answers, and its cursor after."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            definitions=self.defs,
            sensor_name=name,
            resources={"platform": self.platform},
        )
        return self.defs.resolve_sensor_def(name).evaluate_tick(context)

    def schedule(self, name: str) -> Any:
        """One evaluation of a schedule at the test's time."""
        context = dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=self.now(),
            resources={"platform": self.platform},
        )
        return self.defs.resolve_schedule_def(name).evaluate_tick(context)

    def enqueue(
        self,
        job: str,
        config: dict[str, Any] | None = None,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    ) -> dg.DagsterRun:
        """A run in the given state that nobody executes."""
        return self.instance.create_run_for_job(
            self.defs.resolve_job_def(job), run_config=config, status=status
        )

    def check(self, name: str) -> dg.AssetCheckEvaluation:
        """The result of one check, all of them being run."""
        result = self.execute("check_everything")
        found: dict[str, dg.AssetCheckEvaluation] = {
            one.check_name: one for one in result.get_asset_check_evaluations()
        }
        return found[name]

    def stored(self) -> str:
        """Everything that Dagster keeps about this test's runs, in text."""
        runs = self.instance.get_runs()
        lines = [repr(entry) for run in runs for entry in self.instance.all_logs(run.run_id)]
        return "\n".join([*lines, *(repr(run) for run in runs)])

    def execute(self, job: str, config: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """A run of the job in this process: an ExecuteInProcessResult, whose parts are all optional."""
        return self.defs.resolve_job_def(job).execute_in_process(
            run_config=dict(config or {}), instance=self.instance, raise_on_error=False, **more
        )

    def insert(
        self,
        tenant: Tenant,
        at: datetime,
        *,
        many: int = 1,
        kind: str = "test.thing.happened",
        data: str = "{}",
    ) -> None:
        """Put signals into a tenant's table, as ingest would in one commit."""

        async def put(database: Database) -> None:
            async with database.tenant(tenant.schema) as session:
                for _ in range(many):
                    await session.execute(
                        text(
                            "INSERT INTO signals (id, type, source, occurred_at, data, dedupe_key) VALUES"
                            " (:id, :type, 'test', :at, CAST(:data AS jsonb), :key)"
                        ),
                        {
                            "id": new_id(),
                            "type": kind,
                            "at": at,
                            "data": data,
                            "key": str(new_id()),
                        },
                    )

        self.run(put)

    def sql(self, statement: str, schema: str | None = None, **values: Any) -> list[Any]:
        """The rows of a statement, on the platform's tables or a tenant's."""

        async def ask(database: Database) -> list[Any]:
            opened = database.tenant(schema) if schema else database.platform()
            async with opened as session:
                result = await session.execute(text(statement), values)
                return list(result) if result.returns_rows else []  # type: ignore[attr-defined]

        return self.run(ask)


@pytest.fixture
def bench(settings: Settings, tmp_path: Path) -> Iterator[Bench]:
    """The code location; no other test's tenants, marks, directives or slots are there."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        found = Bench(settings.model_copy(update={"lake_dir": tmp_path / "lake"}), instance)
        others = [
            row.id
            for row in found.sql(
                "UPDATE fleetprompt.organizations SET state = 'deleting' WHERE state = 'active' RETURNING id"
            )
        ]
        for table in (
            *("stale_partitions", "directive_queue", "schedule_slots", "workers"),
            *("worker_processes", "approvals_waiting"),
        ):
            found.sql(f"DELETE FROM fleetprompt.{table}")
        yield found
        found.sql(
            "UPDATE fleetprompt.organizations SET state = 'active' WHERE id = ANY(:ids)", ids=others
        )
