"""Noting connectors that have fallen silent."""

import dagster as dg

from fleetprompt.connectors.silence import note_silent
from fleetprompt_dagster.resources import PlatformResource


@dg.sensor(
    name="silent_connectors",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks at the connectors that it is time to look at. Of one that has not been heard of for too "
        "long it tells the signal `connector.silent`, and its installation is `degraded`."
    ),
)
def silent_connectors_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.SkipReason:
    """One look; where the database is away, the next tick looks again."""
    now = platform.now()
    looked = platform.run(lambda database: note_silent(database, now))
    return dg.SkipReason(
        f"Looked at {looked.connectors} connectors; {looked.silent} have fallen silent."
    )
