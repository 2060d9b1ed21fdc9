"""When things are due: local times of day in IANA zones, and the windows between them."""
