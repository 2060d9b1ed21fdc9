"""The connector at work: its threads, its health, its end."""
