"""What the commands share: settings, the event loop, and errors told without a traceback."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import typer

from fleetprompt.errors import FleetPromptError

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end; a problem is told on standard error, with exit code 1."""
    try:
        return asyncio.run(work)
    except FleetPromptError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: FleetPromptError) -> NoReturn:
    """Tell what was wrong and where, and exit with code 1."""
    print(f"error: {error.detail}", file=sys.stderr)
    for place in error.errors:
        print(f"  {place.get('pointer', '')}: {place.get('detail', '')}", file=sys.stderr)
    raise typer.Exit(1)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs."""
    print(json.dumps(value, default=str, ensure_ascii=False))


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("–" if value is None else str(value) for value in row))
    Console().print(table)
