"""A page that shows, on this machine alone, how the connector is."""
