"""What the domain of maintenance offers."""

import dagster as dg

from fleetprompt_dagster.defs.maintenance.connectors import silent_connectors_sensor
from fleetprompt_dagster.defs.maintenance.housekeeping import (
    keep_house,
    keep_house_nightly,
    retention,
    table_sizes_asset,
)
from fleetprompt_dagster.defs.maintenance.jobs import check_every_hour, check_everything
from fleetprompt_dagster.defs.maintenance.sensors import (
    tenant_partitions_sensor,
    workflow_run_signals_sensor,
)

definitions = dg.Definitions(
    assets=[retention, table_sizes_asset],
    jobs=[check_everything, keep_house],
    schedules=[check_every_hour, keep_house_nightly],
    sensors=[tenant_partitions_sensor, workflow_run_signals_sensor, silent_connectors_sensor],
)
