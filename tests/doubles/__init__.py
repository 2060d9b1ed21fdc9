"""Stand-ins for outside services, written from their contract tables."""
