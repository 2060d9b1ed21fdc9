"""Working directives off."""
