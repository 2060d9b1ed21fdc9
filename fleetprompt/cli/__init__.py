"""The ``fleetprompt`` command; each sub-command is a module with a Typer ``app``."""
