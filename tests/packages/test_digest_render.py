"""The digest's text: golden days, the same bytes whatever the order, never too long, inert."""

import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fleetprompt.packages.digest.facts import DigestFacts, facts_from_rows
from fleetprompt.packages.digest.history import Past, SeenError, Totals
from fleetprompt.packages.digest.render import render
from fleetprompt.packages.digest.rows import (
    ErrorGroup,
    Outcome,
    TypeCount,
    Usage,
    Waiting,
)
from fleetprompt.packages.digest.wording import Links
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.schedules.local_time import Window
from tests.doubles.mattermost.text import find_mentions, rewrite
from tests.packages.digest_days import (
    DAYS,
    SUNDAY,
    bad_day,
    digest,
    golden_digest,
    window,
)

GOLDEN = Path(__file__).parent / "golden"


def the_day_before(**totals: Any) -> list[Past]:
    """The window before, with these totals and no errors."""
    return [Past(window(date(2026, 3, 7)), Totals(**totals), ())]


def shuffled(rows: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same rows in another order, large groups in two pieces."""
    order = random.Random(seed)
    mixed: dict[str, Any] = {}
    for name, value in rows.items():
        if not isinstance(value, list):
            mixed[name] = value
            continue
        pieces: list[Any] = []
        for row in value:
            if not isinstance(row, Past) and row.count > 1 and row.name is not None:
                own = {"own": 0, "late": 0} if isinstance(row, TypeCount) else {}
                pieces += [replace(row, count=row.count - 1), replace(row, count=1, **own)]
            else:
                pieces.append(row)
        order.shuffle(pieces)
        mixed[name] = pieces
    return mixed


@pytest.mark.parametrize("day", DAYS)
def test_the_golden_days_read_as_they_should(day: str) -> None:
    assert golden_digest(day).text + "\n" == (GOLDEN / f"{day}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(30))
def test_trap_42_the_order_of_rows_does_not_matter(seed: int) -> None:
    assert digest(shuffled(bad_day(), seed)) == digest(bad_day())


def test_trap_42_another_process_writes_the_same_bytes(repository: Path) -> None:
    """Under another hash seed, locale and time zone."""
    script = (
        "import locale, contextlib\n"
        "with contextlib.suppress(locale.Error): locale.setlocale(locale.LC_ALL, '')\n"
        "from tests.packages.digest_days import golden_digest\n"
        "print(golden_digest('bad_day').sha256)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository,
        env={
            **os.environ,
            "PYTHONHASHSEED": "77",
            "LC_ALL": "C.UTF-8",
            "LANG": "de_DE.UTF-8",
            "TZ": "Asia/Tokyo",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout.strip() == golden_digest("bad_day").sha256


def test_worst_first_and_what_went_well_in_one_line() -> None:
    lines = digest(bad_day()).text.splitlines()
    assert lines[0].startswith("#### 🔴 Acme Robotics")
    assert lines[1].startswith("**Next:** renew the credential of `mattermost`")
    assert lines[2].startswith("**Unusual** · 30 errors (usually 4, from 2 to 6)")
    assert lines[4].startswith("| Count | Error")
    quiet = digest({"outcomes": [o for o in bad_day()["outcomes"] if not o.failed][:2]}).text
    assert sum("succeeded" in line or "installed" in line for line in quiet.splitlines()) == 1


@pytest.mark.parametrize("max_lines", range(10, 60))
def test_trap_16_a_table_that_is_cut_says_exactly_what_is_left_out(max_lines: int) -> None:
    found = digest(bad_day(), max_lines=max_lines)
    assert found.line_count == len(found.text.split("\n")) <= max_lines
    errors = bad_day()["errors"]
    assert f"· {sum(e.count for e in errors)} errors" in found.text
    shown = re.findall(r"^\| \[?(\d+)\]?[^|]*\| `", found.text, flags=re.MULTILINE)
    rest = re.search(r"^\| (\d+) \| \+(\d+) more \(sum (\d+)\) \|", found.text, flags=re.MULTILINE)
    if rest:
        assert rest[1] == rest[3]
        assert len(shown) + int(rest[2]) == len(errors)
        assert sum(map(int, shown)) + int(rest[3]) == sum(e.count for e in errors)
    elif shown:
        assert len(shown) == len(errors)
    else:
        listed = re.search(r"^\*\*Errors\*\* · (.*)$", found.text, flags=re.MULTILINE)
        assert listed
        numbers = [int(a or b) for a, b in re.findall(r"` (\d+)|\(sum (\d+)\)", listed[1])]
        assert sum(numbers) == sum(e.count for e in errors)


def test_trap_16_lines_left_out_are_counted() -> None:
    # Too short for the table and one of its rows beside everything else.
    full = digest(bad_day(), max_lines=18).text.splitlines()
    short = digest(bad_day(), max_lines=10).text.splitlines()
    assert not any(line.startswith("+") for line in full)
    assert len(full) == 17
    assert short[-2] == "+8 more lines"
    assert short[:8] == full[:8]
    assert short[-1] == full[-1]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (("mattermost.message.failed",), "renew the credential of `mattermost`: it was refused"),
        (("directive.unknown", "package.install.failed"), "settle 1 × `email.send`"),
        (("package.install.failed", "agent.execution.failed"), "see why package `shopify_orders`"),
        (("shop.sync_00.failed", "workflow.run.failed"), "correct what `shop.sync_00.failed`"),
        (("agent.execution.failed", "workflow.run.failed"), "slow `support_drafts` down"),
        (("workflow.run.failed",), "open the latest failed run of `nightly_lake`"),
    ],
)
def test_the_next_step_is_the_most_useful_one(kept: tuple[str, ...], expected: str) -> None:
    rows = bad_day()
    rows["errors"] = [e for e in rows["errors"] if e.name in kept]
    assert f"**Next:** {expected}" in digest(rows).text


def test_approvals_that_wait_are_told_on_a_day_without_errors() -> None:
    since, lapses = SUNDAY.start - timedelta(days=9), SUNDAY.end + timedelta(hours=2)
    rows = {
        "waiting": [
            Waiting("email.send", 2, SUNDAY.end, lapses),
            Waiting("package.disable", 1, since, lapses + timedelta(days=1)),
        ]
    }
    found = digest(rows)
    address = "(https://fleet.example.com/console/approvals)"
    assert found.text.startswith("#### 🟡")
    assert f"**Next:** decide on [3 directives]{address} waiting for approval." in found.text
    assert (
        f"**Approvals** · [3 directives]{address} waiting: `email.send` 2, `package.disable` 1"
        " · the oldest since Thu 26 Feb 09:00, the first lapses Sun 8 Mar 11:00"
    ) in found.text
    assert not found.failing
    assert not found.empty


def test_trap_41_an_empty_window_is_one_line() -> None:
    rows = {"types": [TypeCount("directive.succeeded", 5, told=True, own=5)]}
    for found in (digest({}), digest(rows)):
        assert found.line_count == 1
        assert found.empty
        assert not found.failing


def test_figures_lead_to_where_they_come_from() -> None:
    text = digest(bad_day()).text
    assert "[14](https://fleet.example.com/console/timeline/agent%3A12)" in text
    runs = digest({"errors": [e for e in bad_day()["errors"] if e.run_id]}).text
    assert "[1](https://dagster.example.com/runs/0f8e-17)" in runs
    failed = ErrorGroup("execution.failed", "agent", "network", 2, SUNDAY.start, SUNDAY.start)
    known = "0195716e-0a00-7000-8000-00000000abcd"
    for named, leads in ((known, f"executions/{known}"), ("e-1", "timeline/e-1")):
        rows = {"errors": [replace(failed, execution_id=named, correlation_id="c")]}
        assert f"[2](https://fleet.example.com/console/{leads})" in digest(rows).text
    window = "since=2026-03-07T14%3A00%3A00Z&until=2026-03-08T13%3A00%3A00Z"
    for figure, page in {
        "1,457": f"signals?{window}",
        "77": f"signals?type=shop.order.created&{window}",
        "812 received": f"signals?type=email.inbound.received&{window}",
        "14 failed": "executions?state=failed",
        "96 executions": "executions?state=completed",
        "3 signals": "signals?since=2026-03-07T02%3A10%3A00Z&until=2026-03-07T14%3A00%3A00Z",
    }.items():
        assert f"[{figure}](https://fleet.example.com/console/{page})" in text, figure
    counts = "daily_counts?partition=2026-03-08%7Cacme&view=partitions"
    assert f"[by type](https://dagster.example.com/assets/{counts})" in text
    assert "](" not in digest(bad_day(), links=Links()).text


def test_the_window_is_told_in_local_time_utc_and_true_length() -> None:
    def last_line(start: datetime, hours: float, zone: str) -> str:
        told = Window(start, start + timedelta(hours=hours))
        facts = facts_from_rows(told, types=[TypeCount("web.hit", 1, told=False)])
        return render(facts, Config(), told, ZoneInfo(zone), "T", Links()).text.splitlines()[-1]

    start = datetime(2026, 3, 7, 14, tzinfo=UTC)
    assert last_line(start, 23, "America/New_York") == (
        "Sat 7 Mar 09:00 → Sun 8 Mar 09:00 America/New_York"
        " · 2026-03-07 14:00 → 2026-03-08 13:00 UTC · 23 h, clock change"
    )
    assert last_line(start, 24, "Asia/Kathmandu") == (
        "Sat 7 Mar 19:45 → Sun 8 Mar 19:45 Asia/Kathmandu"
        " · 2026-03-07 14:00 → 2026-03-08 14:00 UTC · 24 h"
    )
    assert last_line(start, 24.5, "UTC") == "Sat 7 Mar 14:00 → Sun 8 Mar 14:30 UTC · 24 h 30 min"


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        (Decimal("1.239"), Decimal("1.00"), "$1.24 (+$0.24)"),
        (Decimal("1.00"), Decimal("1.004"), "$1.00 ·"),
        (Decimal("0.001"), None, "<$0.01 ·"),
        (Decimal("0"), Decimal("1234.5"), "$0.00 (−$1,234.50)"),
    ],
)
def test_cost_is_told_to_the_cent_if_wanted(
    now: Decimal, before: Decimal | None, told: str
) -> None:
    rows = {
        "types": [TypeCount("web.hit", 1, told=False)],
        "usage": Usage(now, 10, None),
        "before": the_day_before(cost_usd=before),
    }
    assert f"**Cost** · {told}" in digest(rows).text
    assert "Cost" not in digest(rows, include_cost_estimates=False).text


def test_totals_read_back_as_they_were_stored() -> None:
    totals = facts_from_rows(SUNDAY, **bad_day()).totals
    assert Totals.from_json({**totals.as_json(), "gone": 1}) == totals
    assert totals.directives_failed == 3


# Text from outside, as bad as it comes.
HOSTILE = (
    *("@all", "<!here>", "<!channel>", "<@abc>", "_@here_", "x.@all", "`@channel`", "``` @all"),
    *("@all\n@here", "Map<K|V>", "<http://x|y>", "a|b|c", "| @all |", "\u202eevil", "a\u200b@all"),
    *(
        "](http://x)",
        "**",
        "#### x",
        "\\",
        "\\`@all",
        "&#64;all",
        "😀" * 40,
        "漢字" * 40,
        "x" * 10_000,
    ),
    *("", "\ud800", "![x](y)", "www.x.test", "~~", "$x$"),
)
texts = st.sampled_from(HOSTILE) | st.text(max_size=60)
counts = st.integers(1, 10**12)
totals = st.builds(
    Totals,
    **dict.fromkeys(("signals", "errors", "executions_failed", "mails_received"), counts),
    cost_usd=st.none() | st.decimals(0, 10**9, places=6),
)
moments = st.datetimes(datetime(2026, 3, 7), datetime(2026, 3, 9), timezones=st.just(UTC))
error_groups = st.builds(
    ErrorGroup,
    name=texts,
    what=texts,
    kind=st.sampled_from(["auth", "network", "rate_limit", "validation", "unknown"]) | texts,
    count=counts,
    first=moments,
    last=moments,
    message=texts,
    correlation_id=st.none() | texts,
    execution_id=st.none() | texts,
    run_id=st.none() | texts,
)
states = st.sampled_from(["succeeded", "failed", "unknown", "cancelled", "awaiting_approval"])
outcome_rows = st.builds(
    Outcome, family=st.just("directive"), state=states, name=texts, count=counts
) | st.builds(
    Outcome,
    family=st.just("package"),
    state=st.sampled_from(["install.completed", "install.failed"]) | texts,
    name=texts,
    count=counts,
)
seen_errors = st.builds(
    SeenError, texts, texts, texts, counts, st.just(SUNDAY.start), st.none() | texts
)
weeks = st.lists(
    st.tuples(totals, st.none() | st.lists(seen_errors, max_size=9).map(tuple)), max_size=7
).map(
    lambda told: [
        Past(window(date(2026, 3, 7 - n)), totals, errors)
        for n, (totals, errors) in enumerate(told)
    ]
)
days = st.fixed_dictionaries(
    {
        "waiting": st.lists(st.builds(Waiting, texts, counts, moments, moments), max_size=9),
        "before": weeks,
        "types": st.lists(st.builds(TypeCount, texts, counts, told=st.booleans()), max_size=30),
        "outcomes": st.lists(outcome_rows, max_size=20),
        "errors": st.lists(error_groups, max_size=60),
        "usage": st.builds(Usage, st.decimals(0, 10**9, places=6), counts, counts),
    }
)
HOSTILE_DAY = {
    "types": [TypeCount(text, 1, told=False) for text in HOSTILE],
    "outcomes": [Outcome("directive", "failed", text, 1) for text in HOSTILE],
    "errors": [
        ErrorGroup(text, text, text, 1, SUNDAY.start, SUNDAY.start, 1, text, text, text, text)
        for text in HOSTILE
    ],
    "usage": Usage(),
    "waiting": [Waiting(text, 1, SUNDAY.start, SUNDAY.end) for text in HOSTILE],
    "before": [
        Past(
            window(date(2026, 3, 7)),
            Totals(errors=1),
            tuple(SeenError(text, text, text, 1, SUNDAY.start, text) for text in HOSTILE),
        )
    ],
}


@given(rows=days, name=texts, max_lines=st.integers(10, 200), seed=st.integers(0, 9))
@example(rows=HOSTILE_DAY, name="@all", max_lines=200, seed=1)
@settings(max_examples=150, deadline=None)
def test_traps_14_15_16_42_whatever_comes_the_text_is_bounded_inert_and_the_same(
    rows: dict[str, Any], name: str, max_lines: int, seed: int
) -> None:
    found = digest(rows, name=name, max_lines=max_lines)
    lines = found.text.split("\n")
    assert found.line_count == len(lines) <= max_lines
    assert len(found.text) <= 15_000
    for generation in ("old", "new"):
        assert rewrite(found.text, {"abc": "boss"}, generation) == found.text
    assert find_mentions([found.text], ["boss", "abc"]).pings == []
    table = [token.type for token in MarkdownIt("commonmark").enable("table").parse(found.text)]
    rows_shown = [line for line in lines if line.startswith("| ")]
    assert table.count("td_open") == 5 * max(0, len(rows_shown) - 1)
    assert all(line == line.strip() for line in lines)
    again = {
        key: random.Random(seed).sample(v, len(v)) if isinstance(v, list) else v
        for key, v in rows.items()
    }
    assert digest(again, name=name, max_lines=max_lines) == found


def test_trap_14_characters_bound_the_text_where_lines_do_not() -> None:
    rows = bad_day()
    rows["errors"] = [
        replace(
            rows["errors"][0],
            name=f"{n:02}{'n' * 200}",
            what="w" * 200,
            message="漢" * 400,
            correlation_id=f"{n}{'c' * 200}",
        )
        for n in range(50)
    ]
    found = digest(rows, max_lines=200)
    assert 14_000 < len(found.text) <= 15_000
    shown = found.text.count("\n| [3](")
    assert f"| +{50 - shown} more (sum {3 * (50 - shown)}) |" in found.text


def test_facts_do_not_depend_on_how_rows_were_grouped() -> None:
    whole: DigestFacts = facts_from_rows(SUNDAY, **bad_day())
    assert facts_from_rows(SUNDAY, **shuffled(bad_day(), 5)) == whole
