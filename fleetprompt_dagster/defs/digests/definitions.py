"""What the domain offers."""

import dagster as dg

definitions = dg.Definitions()
