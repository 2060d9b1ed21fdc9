"""How the steps of a run are executed: in its own process or, once there is a broker, by Celery workers.

Dagster's own distributed engine takes over by configuration alone (docs: deploy/celery). Jobs of one op
gain nothing from it; those of several are spread over machines.
"""

import dagster as dg

from fleetprompt.settings import get_settings


def job_executor() -> dg.ExecutorDefinition:
    """Celery's if ``FLEETPROMPT_CELERY_BROKER`` names a broker, else the run's own process."""
    broker = get_settings().celery_broker
    if broker is None:
        return dg.in_process_executor
    from dagster_celery import celery_executor

    # The address may hold a password: only the name of its variable is in what Dagster stores.
    source = {"env": "FLEETPROMPT_CELERY_BROKER"}
    return celery_executor.configured({"broker": source, "backend": source}, name="celery")
