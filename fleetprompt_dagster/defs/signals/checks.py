"""Whether the days are right. Each check says how to recover."""

from datetime import date, timedelta

import dagster as dg

from fleetprompt.lake.audit import Difference, differences, overdue_days, repeated_keys
from fleetprompt.lake.stale import TODAY_SETTLES_AT_MOST
from fleetprompt.signals.secret_search import SecretFound, secrets_since
from fleetprompt.tenants.service import Tenant, active_tenants
from fleetprompt_dagster.defs.signals.assets import signal_store
from fleetprompt_dagster.metadata import markdown_table
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource
from fleetprompt_dagster.runbooks import runbook

# Days looked at, today included.
LOOK_BACK = 7
_SAMPLE = 20
_CLOSED_DAY_OVERDUE = timedelta(minutes=15)
# Twice as long as it is until the next look.
_SECRETS_LOOK_BACK = timedelta(hours=2)
_MOST_SIGNALS_OF_A_TENANT = 20_000
_TODAY_OVERDUE = TODAY_SETTLES_AT_MOST + timedelta(minutes=30)


def _days(platform: PlatformResource) -> list[date]:
    today = platform.now().date()
    return [today - timedelta(days=ago) for ago in reversed(range(LOOK_BACK))]


def _tenants(opened: OpenPlatform) -> list[Tenant]:
    async def all_tenants() -> list[Tenant]:
        async with opened.database.platform() as session:
            return await active_tenants(session)

    return opened.run(all_tenants())


@dg.asset_check(
    asset=signal_store.key,
    metadata=runbook("signals_match_postgresql"),
    description=(
        "The last seven days' files hold as many signals as PostgreSQL, for every tenant. Days that "
        "wait to be written again are not counted. To recover: materialise the days named here."
    ),
)
def signals_match_postgresql(platform: PlatformResource) -> dg.AssetCheckResult:
    """Compare row counts."""
    found: list[Difference] = []
    days = _days(platform)
    with platform.open() as opened:
        looked_at = _tenants(opened)
        for tenant in looked_at:
            found += opened.run(differences(opened.database, opened.settings.lake, tenant, days))
    return dg.AssetCheckResult(
        passed=not found,
        metadata={
            "tenants": len(looked_at),
            "different_days": len(found),
            "sample": dg.MetadataValue.md(
                markdown_table(
                    ["tenant", "day", "in PostgreSQL", "in the lake"],
                    [
                        (
                            one.tenant,
                            one.day,
                            one.in_postgresql,
                            "no file" if one.in_lake is None else one.in_lake,
                        )
                        for one in found[:_SAMPLE]
                    ],
                )
            ),
        },
        description=(
            "Every day's file holds what PostgreSQL holds."
            if not found
            else f"{len(found)} days differ. Materialise `signals` and `daily_counts` for the tenants and "
            "days in the sample, or launch `rebuild_stale_days` with them; then run this check again. If "
            "they differ still, somebody else writes to the lake's folder."
        ),
    )


@dg.asset_check(
    asset=signal_store.key,
    metadata=runbook("dedupe_keys_are_unique"),
    description=(
        "No tenant has two signals with one dedupe key in the last seven days. To recover: see which "
        "producer wrote past ingest; ingest and the platform's own signals go through `signal_keys`."
    ),
)
def dedupe_keys_are_unique(platform: PlatformResource) -> dg.AssetCheckResult:
    """Count repeated keys."""
    repeated: dict[str, int] = {}
    days = _days(platform)
    with platform.open() as opened:
        looked_at = _tenants(opened)
        for tenant in looked_at:
            if count := opened.run(repeated_keys(opened.database, tenant, days)):
                repeated[tenant.slug] = count
    return dg.AssetCheckResult(
        passed=not repeated,
        metadata={
            "tenants": len(looked_at),
            "repeated_keys": sum(repeated.values()),
            "sample": dg.MetadataValue.md(
                markdown_table(["tenant", "repeated keys"], list(repeated.items())[:_SAMPLE])
            ),
        },
        description=(
            "Every dedupe key stands at one signal."
            if not repeated
            else f"{len(repeated)} tenants have repeated keys. Something wrote signals without their keys: "
            "look at the sources of the repeated signals, stop that writer, and delete the later rows."
        ),
    )


@dg.asset_check(
    asset=signal_store.key,
    metadata=runbook("no_secret_is_found"),
    description=(
        "No signal of the last two hours holds what looks like a secret; a warning. To recover: have the "
        "secret changed where it is valid, see which producer told it, and remove it from the signal."
    ),
)
def no_secret_is_found(platform: PlatformResource) -> dg.AssetCheckResult:
    """Look for the shapes that ingest refuses, also in what did not come through it."""
    found: list[SecretFound] = []
    signals_seen = 0
    since = platform.now() - _SECRETS_LOOK_BACK
    with platform.open() as opened:
        looked_at = _tenants(opened)
        for tenant in looked_at:
            seen, own = opened.run(
                secrets_since(opened.database, tenant, since, _MOST_SIGNALS_OF_A_TENANT)
            )
            signals_seen += seen
            found += own
    rows = [(one.tenant, one.signal_id, one.type, one.pointer, one.shape) for one in found]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "tenants": len(looked_at),
            "signals": signals_seen,
            "secrets": len(found),
            "sample": dg.MetadataValue.md(
                markdown_table(["tenant", "signal", "type", "where", "looks like"], rows[:_SAMPLE])
            ),
        },
        description=(
            "No signal holds what looks like a secret."
            if not found
            else f"{len(found)} places look like secrets. Have each changed where it is valid; then see "
            "which producer told it, stop that, and remove the value from the signal and write its day again."
        ),
    )


@dg.asset_check(
    asset=signal_store.key,
    metadata=runbook("no_day_stays_stale"),
    description=(
        "No day waits too long to be written again. To recover: see the failed runs of "
        "`rebuild_stale_days` for why, and that the sensor `stale_days` is on."
    ),
)
def no_day_stays_stale(platform: PlatformResource) -> dg.AssetCheckResult:
    """Look for marks that nothing answers."""
    now = platform.now()
    overdue = platform.run(
        lambda database: overdue_days(
            database, now, closed=_CLOSED_DAY_OVERDUE, today=_TODAY_OVERDUE
        )
    )
    return dg.AssetCheckResult(
        passed=not overdue,
        metadata={
            "overdue_days": len(overdue),
            "sample": dg.MetadataValue.md(
                markdown_table(
                    ["tenant", "day", "stale since"],
                    [(one.tenant, one.day, one.marked_at) for one in overdue[:_SAMPLE]],
                )
            ),
        },
        description=(
            "Every changed day was written again in time."
            if not overdue
            else f"{len(overdue)} days wait. Open the last runs of `rebuild_stale_days`: their output says "
            "which tenants' days failed and why. Check that the daemon runs and that the sensor "
            "`stale_days` is on; marks stay until their day is written, so nothing is lost."
        ),
    )
