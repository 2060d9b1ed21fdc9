"""Three days to render: a bad one, a good one and one on which nothing happened."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from fleetprompt.packages.digest.delivery_record import DeliveryRecord
from fleetprompt.packages.digest.facts import facts_from_rows
from fleetprompt.packages.digest.history import Past, SeenError, Totals
from fleetprompt.packages.digest.render import DigestText, render
from fleetprompt.packages.digest.rows import (
    ErrorGroup,
    Outcome,
    TypeCount,
    Usage,
    Waiting,
)
from fleetprompt.packages.digest.wording import Links
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.schedules.local_time import Window, window_of

ZONE = ZoneInfo("America/New_York")
LINKS = Links(
    console="https://fleet.example.com",
    dagster="https://dagster.example.com",
    correlation_id="digest:acme:2026-03-08:ops",
    tenant="acme",
)
RECORD = DeliveryRecord((("on time", 29), ("late", 1)), read_back=2)


def window(day: date) -> Window:
    """The window that ends on that day at nine o'clock in New York."""
    found = window_of(day, time(9), ZONE)
    assert found is not None
    return found


def at(hour: int, minute: int = 0) -> datetime:
    """A UTC instant after the start of 7 March 2026."""
    return datetime(2026, 3, 7, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)


def week(
    *,
    cost: tuple[str, ...],
    seen: tuple[SeenError, ...] = (),
    seen_last: tuple[SeenError, ...] = (),
    **totals: tuple[int, ...],
) -> list[Past]:
    """The seven windows up to 7 March, their totals by name; ``seen`` errors are of all but the last."""
    days = [window(date(2026, 3, day)) for day in range(1, 8)]
    past = [
        Past(
            day,
            Totals(
                cost_usd=Decimal(cost[n]), **{name: values[n] for name, values in totals.items()}
            ),
            seen,
        )
        for n, day in enumerate(days)
    ]
    return [*past[:-1], replace(past[-1], errors=seen_last)]


def bad_day() -> dict[str, Any]:
    """The rows of the day on which clocks changed, and much went wrong."""
    errors = [
        ErrorGroup(
            "mattermost.message.failed", "", "auth", 3, at(15), at(30),
            message="The webhook was refused with status 400",
            correlation_id="digest:acme:2026-03-07:ops",
        ),
        ErrorGroup(
            "package.install.failed", "shopify_orders", "network", 2, at(17), at(18, 20),
            message="Connection to shop.example.com timed out after 10 s", correlation_id="inst:7",
        ),
        ErrorGroup(
            "workflow.run.failed", "nightly_lake", "unknown", 1, at(29), at(29),
            message="Step signals: 3 partitions could not be written", run_id="0f8e-17",
        ),
        ErrorGroup(
            "directive.unknown", "email.send", "network", 1, at(28), at(28),
            message="The connection was lost after the last byte", correlation_id="mail:44",
        ),
        ErrorGroup(
            "agent.execution.failed", "support_drafts", "rate_limit", 14, at(20), at(33, 5),
            message="429 from the model's endpoint", correlation_id="agent:12",
        ),
    ]  # fmt: skip
    errors += [
        ErrorGroup(f"shop.sync_{n:02}.failed", "", "validation", 1, at(16), at(16 + n % 9))
        for n in range(9)
    ]
    return {
        "types": [
            TypeCount("email.inbound.received", 812, told=False, late=3, earliest_late=at(2, 10)),
            TypeCount("webchat.message.received", 301, told=False),
            TypeCount("shop.order.created", 77, told=False),
            TypeCount("shop.order.paid", 70, told=False),
            TypeCount("shop.order.refunded", 4, told=False),
            TypeCount("webchat.escalated", 2, told=False),
            TypeCount("webchat.consent.given", 2, told=False),
            TypeCount("directive.succeeded", 141, told=True, own=1),
            TypeCount("workflow.run.completed", 48, told=True),
        ],
        "outcomes": [
            Outcome("package", "install.completed", "email_capture", 1),
            Outcome("package", "install.failed", "shopify_orders", 2),
            Outcome("directive", "succeeded", "email.draft", 120),
            Outcome("directive", "succeeded", "package.install", 21),
            Outcome("directive", "failed", "package.install", 2),
            Outcome("directive", "unknown", "email.send", 1),
            Outcome("directive", "awaiting_approval", "email.send", 1),
            Outcome("directive", "cancelled", "email.draft", 2),
            Outcome("execution", "completed", "support_drafts", 96),
            Outcome("execution", "failed", "support_drafts", 14),
            Outcome("run", "completed", "drain_directives", 47),
            Outcome("run", "failed", "nightly_lake", 1),
        ],
        "errors": errors,
        "usage": Usage(Decimal("4.8213"), 1_204_330, 88_120),
        "waiting": [Waiting("email.send", 4, at(-20), at(100))],
        "before": week(
            signals=(1290, 1275, 1310, 1188, 1302, 1267, 1320),
            errors=(3, 5, 2, 4, 6, 3, 4),
            directives_succeeded=(138, 142, 131, 140, 145, 139, 141),
            directives_failed=(1, 2, 0, 1, 1, 3, 1),
            executions_completed=(98, 103, 95, 99, 104, 100, 101),
            executions_failed=(1, 2, 0, 1, 3, 1, 2),
            runs_completed=(48, 48, 47, 48, 48, 48, 48),
            cost=("3.02", "3.20", "2.95", "3.08", "3.15", "3.11", "3.10"),
            mails_received=(790, 805, 820, 760, 811, 799, 808),
            chat_messages=(280, 310, 295, 288, 301, 276, 299),
            seen=(
                SeenError("agent.execution.failed", "support_drafts", "rate_limit", 2, at(0)),
                *(SeenError(f"shop.sync_{n:02}.failed", "", "validation", 1, at(0)) for n in range(9)),
            ),
            seen_last=(
                SeenError("workflow.run.failed", "nightly_lake", "unknown", 1, at(5), "lake:6"),
                SeenError("crm.sync.failed", "contacts", "network", 3, at(11), "crm:3"),
            ),
        ),
    }  # fmt: skip


def good_day() -> dict[str, Any]:
    """The rows of a day on which all went well."""
    return {
        "types": [
            TypeCount("email.inbound.received", 640, told=False),
            TypeCount("webchat.message.received", 212, told=False),
            TypeCount("directive.succeeded", 118, told=True),
        ],
        "outcomes": [
            Outcome("package", "install.completed", "email_capture", 1),
            Outcome("directive", "succeeded", "email.draft", 118),
            Outcome("execution", "completed", "support_drafts", 84),
            Outcome("run", "completed", "drain_directives", 48),
        ],
        "usage": Usage(Decimal("2.96"), 804_101, 61_007),
        "before": week(
            signals=(402, 388, 970, 958, 990, 977, 990),
            directives_succeeded=(41, 37, 120, 118, 122, 117, 121),
            executions_completed=(30, 26, 82, 84, 86, 84, 84),
            runs_completed=(48, 48, 48, 48, 48, 48, 48),
            cost=("1.10", "0.94", "2.95", "3.08", "2.99", "3.01", "3.10"),
            mails_received=(251, 240, 633, 641, 652, 638, 649),
            chat_messages=(90, 84, 210, 206, 219, 211, 214),
        ),
    }  # fmt: skip


SUNDAY = window(date(2026, 3, 8))
DAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "bad_day": bad_day,
    "good_day": good_day,
    "empty_day": dict,
}


def digest(
    rows: dict[str, Any],
    *,
    name: str = "Acme Robotics",
    links: Links = LINKS,
    summary: str | None = None,
    **options: Any,
) -> DigestText:
    """The Sunday's digest of these rows, with a configuration of these options."""
    facts = facts_from_rows(SUNDAY, **rows)
    return render(facts, Config(**options), SUNDAY, ZONE, name, links, RECORD, summary)


def golden_digest(day: str, **options: Any) -> DigestText:
    """The digest of a day by its name."""
    return digest(DAYS[day](), **options)
