"""How the steps of a run are executed: in its own process or, once there is a broker, by Celery workers.

Dagster's own distributed engine takes over by configuration alone (docs: deploy/celery), for every job:
the work is then done on the workers' machines, and the run's process only waits for it.
"""

import dagster as dg

from fleetprompt.settings import get_settings


def job_executor() -> dg.ExecutorDefinition:
    """Celery's if ``FLEETPROMPT_CELERY_BROKER`` names a broker, else the run's own process."""
    broker = get_settings().celery_broker
    if broker is None:
        # A second process for each step costs 4 seconds and gains nothing on one machine.
        return dg.in_process_executor
    from dagster_celery import celery_executor

    # The address may hold a password: only the name of its variable is in what Dagster stores.
    source = {"env": "FLEETPROMPT_CELERY_BROKER"}
    return celery_executor.configured({"broker": source, "backend": source}, name="celery")
