"""Sending mail that FleetPrompt asks for, each exactly once."""
