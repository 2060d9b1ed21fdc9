"""What the domain of directives offers."""

import dagster as dg

from fleetprompt_dagster.defs.directives.assets import directive_queue, no_directive_is_stuck
from fleetprompt_dagster.defs.directives.jobs import drain_directives, run_directive
from fleetprompt_dagster.defs.directives.sensors import due_directives_sensor

definitions = dg.Definitions(
    assets=[directive_queue],
    asset_checks=[no_directive_is_stuck],
    jobs=[drain_directives, run_directive],
    sensors=[due_directives_sensor],
)
