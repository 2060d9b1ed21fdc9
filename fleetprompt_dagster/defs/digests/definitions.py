"""What the domain of digests offers."""

import dagster as dg

from fleetprompt_dagster.defs.digests.assets import (
    daily_digest,
    every_digest_is_on_time,
    schedule_slots,
)
from fleetprompt_dagster.defs.digests.jobs import keep_digests, send_digests
from fleetprompt_dagster.defs.digests.schedules import due_digests, keep_digests_hourly

definitions = dg.Definitions(
    assets=[daily_digest, schedule_slots],
    asset_checks=[every_digest_is_on_time],
    jobs=[send_digests, keep_digests],
    schedules=[due_digests, keep_digests_hourly],
)
