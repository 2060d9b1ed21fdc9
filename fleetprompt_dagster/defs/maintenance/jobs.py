"""Running every check, hourly and by hand."""

import dagster as dg

from fleetprompt_dagster.runs import run_tags

check_everything = dg.define_asset_job(
    "check_everything",
    selection=dg.AssetSelection.all_asset_checks(),
    tags=run_tags("every check", priority=-1, longest_seconds=1800),
    description="Runs every check of every asset; each says how to recover if it fails.",
)

check_every_hour = dg.ScheduleDefinition(
    name="check_every_hour",
    job=check_everything,
    cron_schedule="17 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every check, at 17 minutes past the hour.",
)
