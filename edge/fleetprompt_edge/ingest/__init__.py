"""Finding what is new in the watched folders, and telling of it once."""
