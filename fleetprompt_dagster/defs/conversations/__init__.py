"""Tenants' days of website chat."""
