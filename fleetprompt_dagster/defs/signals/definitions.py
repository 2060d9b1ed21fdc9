"""What the domain of signals offers."""

import dagster as dg

from fleetprompt_dagster.defs.signals.assets import daily_counts, signal_store, signals
from fleetprompt_dagster.defs.signals.checks import (
    dedupe_keys_are_unique,
    no_day_stays_stale,
    no_secret_is_found,
    signals_match_postgresql,
)
from fleetprompt_dagster.defs.signals.jobs import rebuild_stale_days
from fleetprompt_dagster.defs.signals.sensors import stale_days_sensor

definitions = dg.Definitions(
    assets=[signal_store, signals, daily_counts],
    asset_checks=[
        signals_match_postgresql,
        dedupe_keys_are_unique,
        no_day_stays_stale,
        no_secret_is_found,
    ],
    jobs=[rebuild_stale_days],
    sensors=[stale_days_sensor],
)
