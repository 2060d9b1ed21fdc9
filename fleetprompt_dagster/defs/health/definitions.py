"""What the domain of health offers."""

import dagster as dg

from fleetprompt_dagster.defs.health.checks import platform_health, platform_is_well
from fleetprompt_dagster.defs.health.sensors import operators_sensor

definitions = dg.Definitions(
    assets=[platform_health], asset_checks=[platform_is_well], sensors=[operators_sensor]
)
