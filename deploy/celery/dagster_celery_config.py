"""Settings of the Celery workers that do the steps of Dagster's runs.

`dagster_celery.app` reads this module from the Python path; copy it to /etc/fleetprompt.
"""

import os

# The address that the runs read too. It may hold a password, so it is in no file of its own.
broker_url = result_backend = os.environ["FLEETPROMPT_CELERY_BROKER"]

# Steps take minutes. A worker takes one when it has a place free, and keeps none from the others: neither the
# usual four, nor, of a Redis, the one that would otherwise wait for each place.
worker_prefetch_multiplier = 1
worker_disable_prefetch = broker_url.startswith(("redis://", "rediss://"))

# A restart of the broker is waited for.
broker_connection_retry_on_startup = True
