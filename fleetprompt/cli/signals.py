"""``fleetprompt signals``: follow them live, and ask handlers again about old ones."""

import contextlib
from datetime import datetime
from typing import Annotated, Any

import typer

from fleetprompt.cli.support import print_json, run
from fleetprompt.settings import get_settings

app = typer.Typer(help="Signals: tail, replay.", no_args_is_help=True)
TenantSlug = Annotated[str, typer.Argument(help="The tenant's slug.")]
TypeFilter = Annotated[
    str | None, typer.Option("--type", help="Exact, or a prefix such as 'email.*'.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON line a signal.")]


@app.command()
def tail(
    tenant: TenantSlug,
    type_: TypeFilter = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only this chain of events.")] = None,
    last: Annotated[int, typer.Option(min=0, max=200, help="Begin with the last N.")] = 10,
    as_json: Json = False,
) -> None:
    """Show signals as they are stored, until Ctrl-C."""
    from fleetprompt.db.engine import Database
    from fleetprompt.db.urls import application_url
    from fleetprompt.signals.models import Signal
    from fleetprompt.signals.read import (
        Filter,
        end_position,
        list_signals,
        position_of,
        read_forward,
    )
    from fleetprompt.signals.wakeups import Listener
    from fleetprompt.tenants.service import get_tenant

    wanted = Filter(type=type_, correlation_id=correlation_id)

    def show(signal: Signal) -> None:
        if as_json:
            print_json(_as_json(signal))
        else:
            subject = f"  {signal.subject_type}/{signal.subject_id}" if signal.subject_id else ""
            print(f"{signal.inserted_at:%H:%M:%S}  {signal.type:<36} {signal.source}{subject}")

    async def work() -> None:
        settings = get_settings()
        listener = Listener(application_url(settings))
        listener.start()
        async with Database.application(settings) as database:
            async with database.platform() as session:
                schema = (await get_tenant(session, tenant)).schema
            async with database.tenant(schema) as session:
                position = await end_position(session)
                for signal in reversed(
                    await list_signals(session, wanted, limit=last) if last else []
                ):
                    if position_of(signal) <= position:
                        show(signal)
            while True:
                async with database.tenant(schema) as session:
                    found = await read_forward(session, position, wanted)
                for signal in found:
                    show(signal)
                    position = position_of(signal)
                if not found:
                    await listener.wait(schema, 1.0)

    with contextlib.suppress(KeyboardInterrupt):
        run(work())


def _as_json(signal: Any) -> dict[str, Any]:
    names = ("id", "type", "source", "occurred_at", "subject_type", "subject_id", "data")
    rest = ("dedupe_key", "source_event_id", "inserted_at")
    found = {name: getattr(signal, name) for name in (*names, *rest)}
    return {**found, "metadata": signal.context}


@app.command()
def replay(
    tenant: TenantSlug,
    since: Annotated[datetime, typer.Option(help="From this time on (UTC unless it has a zone).")],
    until: Annotated[datetime | None, typer.Option(help="Up to this time. Default: now.")] = None,
    type_: TypeFilter = None,
    execute: Annotated[
        bool, typer.Option(help="Request the directives. Without it, only show them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the handlers again about stored signals.

    What was asked for before keeps its idempotency key and is not done twice.
    """
    from fleetprompt.db.engine import Database
    from fleetprompt.packages.signal_handlers import signal_handlers
    from fleetprompt.signals.replay import replay as replay_signals
    from fleetprompt.tenants.service import get_tenant

    async def work() -> dict[str, int]:
        async with Database.application(get_settings()) as database:
            async with database.platform() as session:
                found = await get_tenant(session, tenant)
            result = await replay_signals(
                database,
                found,
                signal_handlers(),
                since=since,
                until=until,
                type_=type_,
                execute=execute,
            )
            return {"signals": result.signals, "asked": result.asked, "requested": result.requested}

    done = run(work())
    if as_json:
        print_json(done)
    else:
        print(f"{done['signals']} signals, {done['asked']} directives asked for", end="")
        print(f", {done['requested']} of them new." if execute else "; --execute requests them.")
