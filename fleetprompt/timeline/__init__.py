"""What happened: everything of one correlation id, and of what caused it or followed, in one order."""
