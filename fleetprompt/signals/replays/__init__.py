"""Replays: asking the packages' handlers again about signals that are stored (docs/decisions/replay.md)."""
