"""Signals: what happened, stored once, kept in order, and never lost after a 2xx."""
