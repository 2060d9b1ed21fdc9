"""The Dagster code location: assets, checks, jobs, schedules and sensors over the domain."""
