"""Encrypted integration credentials: the master key, the tenants' data keys, sealed values."""
