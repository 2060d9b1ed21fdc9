"""The ``fleetprompt`` command: a list of sub-commands, each imported only when it is called.

A module listed here has a ``typer.Typer`` named ``app``, of one command or several.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("fleetprompt.cli.up", "Run the whole platform on this machine until Ctrl-C."),
    "doctor": ("fleetprompt.cli.doctor", "Check this installation and say how to mend it."),
    "migrate": (
        "fleetprompt.cli.migrate",
        "Bring the database and every tenant's schema to the newest revision.",
    ),
    "tenants": ("fleetprompt.cli.tenants", "Tenants: create, list, delete."),
    "keys": ("fleetprompt.cli.keys", "API keys: issue, list, revoke."),
    "console": ("fleetprompt.cli.console", "The console: sign people in and out."),
    "signals": ("fleetprompt.cli.signals", "Signals: tail, replay."),
    "sql": ("fleetprompt.cli.sql", "Ask the lake, in DuckDB's SQL."),
    "export": ("fleetprompt.cli.export", "Write a tenant's data as CSV, Parquet or JSON lines."),
    "analysts": (
        "fleetprompt.cli.analysts",
        "Logins that read one tenant in PostgreSQL: grant, revoke.",
    ),
    "backup": ("fleetprompt.cli.backup", "Write one tenant into one file."),
    "restore": ("fleetprompt.cli.restore", "Make a tenant from its backup."),
    "retention": (
        "fleetprompt.cli.retention",
        "How long what is kept, tenant by tenant: show, set, run.",
    ),
    "what-happened": (
        "fleetprompt.cli.what_happened",
        "Everything of one correlation id, in one order.",
    ),
}
"""Name → module and the line that ``--help`` shows."""


class LazyGroup(TyperGroup):
    """Knows its commands by name and help; imports the one that is called."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for name, (_module, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name=name, callback=None, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The called command itself in place of its entry in the list."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            found = import_module(COMMANDS[name][0]).app
            # Of a docstring's paragraphs the lines are broken where the terminal is, not where the source is.
            found.rich_markup_mode = "markdown"
            if found.registered_callback is None and len(found.registered_commands) == 1:
                # One command with arguments, whose options may stand behind them.
                command = get_command(found)
            else:
                parent = typer.Typer(add_completion=False, rich_markup_mode="markdown")
                parent.add_typer(found, name=name)
                command = get_group(parent).commands[name]
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="FleetPrompt: mailboxes, team chat and websites become signals.",
)


@app.callback()
def fleetprompt() -> None:
    """Settings come from the environment: see docs/reference/settings.md."""


if __name__ == "__main__":
    app()
