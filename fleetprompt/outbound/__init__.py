"""What leaves the platform: the ledger and the transports."""
