"""Organizations, their members and roles, and the keys by which programs come in."""
