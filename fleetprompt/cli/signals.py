"""``fleetprompt signals``: follow them live, and ask handlers again about old ones."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fleetprompt.cli.support import print_json, run
from fleetprompt.settings import get_settings

app = typer.Typer(help="Signals: tail, replay.", no_args_is_help=True)
TenantSlug = Annotated[str, typer.Argument(help="The tenant's slug.")]
TypeFilter = Annotated[
    str | None, typer.Option("--type", help="Exact, or a prefix such as 'email.*'.")
]
_SHOWN = 20  # findings for people
_LOOK_SECONDS = 0.5
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
    since: Annotated[
        datetime | None, typer.Option(help="What occurred from this time on (UTC without a zone).")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="What occurred before this time.")] = None,
    stored_since: Annotated[
        datetime | None, typer.Option(help="What was stored from this time on.")
    ] = None,
    stored_until: Annotated[
        datetime | None, typer.Option(help="What was stored before this time.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Exact, or 'email.*'; may be repeated.")
    ] = None,
    sources: Annotated[list[str] | None, typer.Option("--source", help="May be repeated.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only this story.")] = None,
    package: Annotated[str | None, typer.Option(help="Only this package's handlers.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Request what is new. Without it, only tell.")
    ] = False,
    wait: Annotated[
        bool, typer.Option(help="Work it off here; without, the platform's drain does.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Ask the packages' handlers again about stored signals: muted, or --live.

    What was requested before keeps its idempotency key and is not done twice. Interrupted, it is
    gone on with by the platform's drain.
    """
    given = {
        "occurred_from": _zoned(since),
        "occurred_before": _zoned(until),
        "inserted_from": _zoned(stored_since),
        "inserted_before": _zoned(stored_until),
        "types": types or [],
        "sources": sources or [],
        "correlation_id": correlation_id,
        "package": package,
    }
    done, findings = run(_replay(tenant, given, live=live, wait=wait))
    if as_json:
        print_json({**done, "findings": findings})
        return
    print(f"replay {done['id']}: {done['state']}\n{done['outcome']}")
    for one in findings[:_SHOWN]:
        what = one["idempotency_key"] or one["detail"]
        print(f"  {one['outcome']:<14} {one['directive_type'] or one['package']}  {what}")
    if len(findings) > _SHOWN:
        print(f"  … /api/v1/replays/{done['id']}/findings has all")


async def _replay(
    slug: str, given: dict[str, Any], *, live: bool, wait: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask for a replay and, with ``wait``, work it off unless a drain is faster."""
    from pydantic import ValidationError

    from fleetprompt.db.engine import Database
    from fleetprompt.directives.actors import Actor
    from fleetprompt.directives.runner import DirectiveRunner
    from fleetprompt.directives.service import get as get_directive
    from fleetprompt.directives.wake import notify_directives
    from fleetprompt.errors import InvalidError
    from fleetprompt.signals.replays import service
    from fleetprompt.signals.replays.models import OPEN_STATES
    from fleetprompt.signals.replays.selection import Selection
    from fleetprompt.tenants.service import get_tenant

    try:
        selection = Selection.model_validate(given)
    except ValidationError as error:
        raise InvalidError(
            "This replay cannot be meant.",
            errors=[
                {"pointer": "".join(f"/{part}" for part in at["loc"]), "detail": at["msg"]}
                for at in error.errors(include_url=False, include_input=False)
            ],
        ) from None
    settings = get_settings()
    async with Database.application(settings) as database:
        async with database.platform() as session:
            tenant = await get_tenant(session, slug)
        async with database.tenant(tenant.schema) as session:
            replay = await service.ask_for_replay(
                session, tenant, selection, live=live, actor=Actor("operator", "platform")
            )
        await notify_directives(database)
        if wait:
            async with DirectiveRunner(database, settings, owner="signals-replay") as runner:
                while replay.state in OPEN_STATES:
                    await runner.work(tenant, [replay.directive_id])
                    async with database.tenant(tenant.schema) as session:
                        replay = await service.get_replay(session, replay.id)
                        directive = await get_directive(session, replay.directive_id)
                    if directive.state == "awaiting_approval":
                        break
                    if replay.state in OPEN_STATES:
                        await asyncio.sleep(_LOOK_SECONDS)
        async with database.tenant(tenant.schema) as session:
            findings = await service.list_findings(session, replay.id, limit=service.MOST_AT_ONCE)
    return _columns(replay) | {"outcome": service.outcome_of(replay)}, [
        _columns(one) for one in reversed(findings)
    ]


def _columns(row: Any) -> dict[str, Any]:
    left_out = ("before_txid", "cursor_txid", "cursor_id", "action_sha256")
    names = [column.name for column in row.__table__.columns]
    return {name: getattr(row, name) for name in names if name not in left_out}


def _zoned(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value
