"""Connectors that customers run: pairing, what is known of each, revoking."""
