"""FleetPrompt's HTTP API and console."""
