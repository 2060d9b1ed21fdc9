"""Tenants' days of signals: assets, their repair when they change, and checks."""
