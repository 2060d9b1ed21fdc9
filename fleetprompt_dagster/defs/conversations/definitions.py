"""What the domain of conversations offers."""

import dagster as dg

from fleetprompt_dagster.defs.conversations.assets import conversations

definitions = dg.Definitions(assets=[conversations])
