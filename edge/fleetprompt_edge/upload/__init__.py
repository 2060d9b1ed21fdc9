"""Bringing queued signals to FleetPrompt, each at least once and none in vain."""
