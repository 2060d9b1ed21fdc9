"""Daily digests: when they are due, their runs, and their record."""
