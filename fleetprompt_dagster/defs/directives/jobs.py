"""Working directives off in runs of many: a drain that stays a while, and one directive by id."""

from uuid import UUID

import dagster as dg
from pydantic import Field

from fleetprompt.db.engine import Database
from fleetprompt.directives.models import Directive
from fleetprompt.directives.outcomes import DirectiveOutcome, OnDone
from fleetprompt.directives.runner import CONCURRENCY, DirectiveRunner
from fleetprompt.tenants.service import get_tenant
from fleetprompt_dagster.defs.digests.records import digest_events, settled_by
from fleetprompt_dagster.grid import tell_grid
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource
from fleetprompt_dagster.runs import QUIET, run_tags
from fleetprompt_dagster.work_thread import WorkThread
from fleetprompt_dagster.working import Tally, directive_runner, line_of

# A drain retires before its code or its memory grows old; work that is under way is finished first.
DRAIN_SECONDS = 600
_LONGEST_DIRECTIVE_SECONDS = 300


class DrainConfig(dg.Config):
    """How long a drain stays, in seconds, and how many directives it works on at once."""

    linger_seconds: float = Field(
        default=120.0, ge=0, description="Seconds without work after which the drain ends."
    )
    most_seconds: float = Field(
        default=float(DRAIN_SECONDS), gt=0, description="Seconds after which nothing new is begun."
    )
    hand_over_seconds: float = Field(
        default=60.0,
        ge=0,
        description="Seconds for which it then goes on while the next drain has not begun.",
    )
    concurrency: int = Field(
        default=CONCURRENCY, ge=1, le=500, description="Directives worked on at once."
    )


class DirectiveConfig(dg.Config):
    """Which directive to work on."""

    tenant: str = Field(description="The tenant's slug.")
    directive_id: str = Field(description="The directive's id.")


@dg.op(out=dg.Out(dg.Nothing), tags={"domain": "directives"})
def drain(
    context: dg.OpExecutionContext, config: DrainConfig, platform: PlatformResource
) -> dg.Output[None]:
    """Work off what is due, stay for more, tell of directives as they end, and show the latest.

    How a directive ends is its own matter and does not fail the run: it is in the tenant's signals. Each
    one's structured line is in the run's compute log.
    """

    async def work(opened: OpenPlatform, ended: OnDone) -> None:
        runner = directive_runner(context, opened, platform, concurrency=config.concurrency)
        async with runner:
            await runner.drain(
                linger_seconds=config.linger_seconds,
                most_seconds=config.most_seconds,
                hand_over_seconds=config.hand_over_seconds,
                on_done=ended,
            )

    tally = Tally()
    with WorkThread(platform, work) as drained, platform.open() as opened:
        for batch in drained.batches():
            for outcome in batch:
                tally.add(outcome)
            context.log.info("\n".join(line_of(outcome) for outcome in batch))
            settled = opened.run(settled_by(opened.database, batch, context.run_id))
            tell_grid(context, digest_events(settled, opened.settings))
    context.instance.add_run_tags(context.run_id, tally.tags())
    return dg.Output(None, metadata=tally.metadata())


@dg.job(
    tags={
        **run_tags(
            "work off directives",
            priority=20,
            longest_seconds=DRAIN_SECONDS + _LONGEST_DIRECTIVE_SECONDS,
        ),
        **QUIET,
        # The sensor sees to the next one.
        "dagster/max_retries": "0",
    },
    description=(
        "Works off every tenant's due directives, in turns, and waits a while for more, so that a "
        "directive that comes meanwhile starts at once. Started by the sensor `due_directives`; what a "
        "killed run held is taken up by the next one when its leases have run out."
    ),
)
def drain_directives() -> None:
    """One op, so that one process does it all."""
    drain()


@dg.op(out=dg.Out(dg.Nothing), tags={"domain": "directives"})
def work_directive(
    context: dg.OpExecutionContext, config: DirectiveConfig, platform: PlatformResource
) -> dg.Output[None]:
    """Make one attempt at one directive; the run fails if the directive is not due or the attempt fails."""
    directive_id = UUID(config.directive_id)

    async def work(runner: DirectiveRunner, database: Database) -> list[DirectiveOutcome]:
        async with database.platform() as session:
            tenant = await get_tenant(session, config.tenant)
        async with runner:
            outcomes = await runner.work(tenant, [directive_id])
        if outcomes:
            return outcomes
        async with database.tenant(tenant.schema) as session:
            found = await session.get(Directive, directive_id)
        raise dg.Failure(
            f"There is no directive {directive_id} in {config.tenant!r}."
            if found is None
            else f"The directive is {found.state} and not due, so there is nothing to attempt. One "
            "that is running is attempted again when its lease has run out.",
            allow_retries=False,
        )

    with platform.open() as opened:
        outcomes = opened.run(work(directive_runner(context, opened, platform), opened.database))
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
        context.log.info(line_of(outcome))
    context.instance.add_run_tags(context.run_id, tally.tags())
    metadata = tally.metadata()
    if any(outcome.state != "succeeded" for outcome in outcomes):
        raise dg.Failure(
            f"The attempt ended {outcomes[0].state}: {outcomes[0].error_message}",
            metadata=metadata,
            allow_retries=False,
        )
    return dg.Output(None, metadata=metadata)


@dg.job(
    tags=run_tags("one directive", priority=20, longest_seconds=_LONGEST_DIRECTIVE_SECONDS),
    description="One attempt at one directive, by tenant and id, from the launchpad.",
)
def run_directive() -> None:
    """One op."""
    work_directive()
