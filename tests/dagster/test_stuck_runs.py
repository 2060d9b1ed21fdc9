"""Runs whose process is gone: Dagster's monitoring ends them, and their place in the queue is free."""

import json
import logging
import time

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.monitoring import run_monitoring

from fleetprompt_dagster.definitions import defs
from tests.ports import free_port

_LOG = logging.getLogger(__name__)


def test_trap_15_a_run_of_any_job_that_hangs_is_ended_by_its_own_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its code server is gone too, so nobody can be asked to end it."""
    gone = json.dumps({"host": "127.0.0.1", "port": free_port()})
    jobs = [job for job in defs.get_repository_def().get_all_jobs() if "__" not in job.name]
    with dg.instance_for_test() as instance:
        limits: dict[str, float] = {}
        for job in jobs:
            tags = {**job.run_tags, GRPC_INFO_TAG: gone}
            run = create_run_for_test(instance, job.name, tags=tags)
            instance.handle_new_event(_started(run))
            limits[run.run_id] = float(run.tags["dagster/max_runtime"])
        began = time.time()

        def live_after(seconds: float) -> set[str]:
            monkeypatch.setattr(run_monitoring, "get_current_timestamp", lambda: began + seconds)
            for record in instance.get_run_records(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
            ):
                run_monitoring.check_run_timeout(instance, record, _LOG, 1800.0)
            found = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            return {run.run_id for run in found}

        for seconds in sorted(set(limits.values())):
            longer = {run_id for run_id, limit in limits.items() if limit > seconds}
            assert live_after(seconds - 10) == longer | {
                run_id for run_id, limit in limits.items() if limit == seconds
            }
            assert live_after(seconds + 10) == longer
        for run_id in limits:
            ended = instance.get_run_by_id(run_id)
            assert ended is not None
            assert ended.status is dg.DagsterRunStatus.FAILURE


def _started(run: dg.DagsterRun) -> dg.EventLogEntry:
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level="info",
        user_message="",
        run_id=run.run_id,
        timestamp=time.time(),
        job_name=run.job_name,
        dagster_event=dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name),
    )
