"""The Parquet lake: each tenant's days as files that are replaced whole, and their reading."""
