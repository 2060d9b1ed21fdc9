"""What the commands share: settings, the event loop, and errors told without a traceback."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import typer

from fleetprompt.errors import FleetPromptError

T = TypeVar("T")

_LAST_COLUMN = 40  # characters; narrower it is not made


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
    """A table for people. Only its last column is broken into lines, so that the others can be copied."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [[_in_a_cell(value) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *shown, strict=True)]
    least = sum(widths[:-1]) + 2 * len(widths) + min(widths[-1], _LAST_COLUMN)
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))
    console = Console()
    console.width = max(console.width, least)
    console.print(title, style="italic", markup=False)
    console.print(table)


def _in_a_cell(value: object) -> str:
    """As a table shows it: names are others' words, which move no cursor."""
    return "–" if value is None else "".join(s if s.isprintable() else " " for s in str(value))
