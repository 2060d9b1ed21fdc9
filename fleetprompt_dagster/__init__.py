"""The Dagster code location: assets, checks, jobs, schedules and sensors over the domain."""

import warnings

import dagster as dg

# Backfill policies, mappings between grids and the owners of sensors are marked as beta. The release
# is pinned and tests use each, so the warnings would only hide others in the logs.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
