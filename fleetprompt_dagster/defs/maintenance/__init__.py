"""Upkeep of the platform itself: tenants' partitions, and its runs as signals."""
