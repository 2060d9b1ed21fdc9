"""The connector as a service of systemd."""
