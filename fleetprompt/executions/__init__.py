"""Executions: what was run, how it ended, and what it said meanwhile."""
