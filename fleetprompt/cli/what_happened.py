"""``fleetprompt what-happened``: the timeline of a correlation id, for people and for programs."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleetprompt.cli.support import print_json, run
from fleetprompt.settings import get_settings

if TYPE_CHECKING:
    from rich.console import Console

    from fleetprompt.timeline.schemas import Entry, Timeline

app = typer.Typer(add_completion=False)

_ENTRIES = 500
_COLOURS = {
    "replay": "bold cyan",
    "signal": "cyan",
    "directive": "bold blue",
    "transition": "blue",
    "approval": "magenta",
    "execution": "green",
    "log": "dim",
    "message": "yellow",
    "run": "bright_black",
}
_BAD = {"failed", "unknown", "rejected", "error"}


@app.command()
def what_happened(
    tenant: Annotated[str, typer.Argument(help="The tenant's slug.")],
    correlation_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A correlation id, or the id of a signal, a directive, an execution or a replay.",
        ),
    ],
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="Most entries; the earliest are shown.")
    ] = _ENTRIES,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Everything of one correlation id, of its causes and its consequences, in one order."""
    from rich.console import Console

    from fleetprompt.db.engine import Database
    from fleetprompt.tenants.service import get_tenant
    from fleetprompt.timeline import service

    async def work() -> "Timeline":
        settings = get_settings()
        async with Database.application(settings) as database:
            async with database.platform() as session:
                schema = (await get_tenant(session, tenant)).schema
            async with database.tenant(schema) as session:
                return await service.what_happened(
                    session, correlation_id, limit=limit, dagster_url=settings.dagster_base_url
                )

    found = run(work())
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(Console(soft_wrap=True, highlight=False), found)


def _show(console: "Console", timeline: "Timeline") -> None:
    """A line an entry; a date where a new day begins. All times are in UTC."""
    console.print(f"{', '.join(timeline.correlation_ids) or timeline.asked}", markup=False)
    day = None
    for entry in timeline.entries:
        if entry.at.date() != day:
            day = entry.at.date()
            console.print(f"\n{day:%A, %d %B %Y} (UTC)", style="bold", markup=False)
        console.print(_line(entry), style=_colour(entry), markup=False)
    more = timeline.more
    plus = "" if more.exact else " or more"
    if more.entries:
        console.print(f"\n+{more.entries} more{plus}; --limit shows up to 1000", markup=False)
    if more.correlation_ids:
        console.print(f"+{more.correlation_ids} more correlation ids{plus}", markup=False)


def _line(entry: "Entry") -> str:
    # What others sent stays on its line, and no control character of theirs reaches the terminal.
    title = "".join(sign if sign.isprintable() else " " for sign in entry.title)
    at = f"{entry.at:%H:%M:%S}.{entry.at.microsecond // 1000:03}"
    return f"{at}  {entry.kind:<10}  {title}"


def _colour(entry: "Entry") -> str:
    detail = entry.detail
    if entry.kind == "transition":
        bad = detail.get("to") in _BAD
    elif entry.kind == "log":
        bad = detail.get("level") in _BAD
    else:
        bad = entry.kind in ("execution", "message", "replay") and detail.get("state") in _BAD
    return "red" if bad else _COLOURS[entry.kind]
