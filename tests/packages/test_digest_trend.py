"""What a digest says of a window beside the days before it: unusual, new, gone, and its course."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.delivery_record import DeliveryRecord
from fleetprompt.packages.digest.facts import facts_from_rows
from fleetprompt.packages.digest.history import (
    Past,
    SeenError,
    Totals,
    last_week,
    usual,
)
from fleetprompt.packages.digest.render import DigestText, render
from fleetprompt.packages.digest.rows import (
    ErrorGroup,
    Outcome,
    TypeCount,
    Usage,
)
from fleetprompt.packages.digest.trend import Trend
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.schedules.local_time import Window
from tests.packages.digest_days import LINKS, RECORD, ZONE, bad_day, good_day, window

SUNDAY = window(date(2026, 3, 8))
WEEK = [window(date(2026, 3, day)) for day in range(1, 8)]


def past(totals: list[Totals], errors: tuple[SeenError, ...] | None = ()) -> list[Past]:
    """The windows up to Saturday, as many as there are totals."""
    return [
        Past(day, told, errors)
        for day, told in zip(WEEK[len(WEEK) - len(totals) :], totals, strict=True)
    ]


def digest(record: DeliveryRecord = RECORD, **rows: Any) -> DigestText:
    return render(facts_from_rows(SUNDAY, **rows), Config(), SUNDAY, ZONE, "Acme", LINKS, record)


def mails(count: int) -> list[TypeCount]:
    return [TypeCount("email.inbound.received", count, told=False)]


def group(name: str, count: int = 1, **rest: Any) -> ErrorGroup:
    return ErrorGroup(name, "", "network", count, SUNDAY.start, SUNDAY.start, **rest)


@pytest.mark.parametrize(
    ("week", "today", "told"),
    [
        # A bad day in the week moves neither the median nor the deviation.
        ((40, 42, 38, 900, 41, 39, 40), 5, "5 mails received (usually 40, from 38 to 900)"),
        ((40, 42, 38, 900, 41, 39, 40), 41, None),
        # A weekend is not remarkable beside the one before.
        ((8, 6, 40, 42, 38, 41, 39), 7, None),
        ((40, 40, 40, 40, 40, 40, 40), 90, "90 mails received (usually 40, every day)"),
        # In a very even week a small step is not worth a word.
        ((40, 40, 40, 40, 40, 40, 40), 45, None),
        ((0, 0, 0, 0, 0, 0, 0), 2, None),
        # Between two middle days.
        ((10, 11, 12, 13, 11, 12), 0, "0 mails received (usually 11.5, from 10 to 13)"),
        # Four days do not tell what is usual.
        ((40, 40, 40, 40), 4000, None),
    ],
)
def test_a_number_is_unusual_when_it_is_far_from_the_median_of_its_week(
    week: tuple[int, ...], today: int, told: str | None
) -> None:
    before = past([Totals(mails_received=count) for count in week])
    types = [*mails(today), TypeCount("web.hit", 1, told=False)]
    text = digest(types=types, before=before).text
    line = next((one for one in text.splitlines() if one.startswith("**Unusual**")), None)
    assert line == (f"**Unusual** · {told}" if told else None)
    assert text.startswith("#### 🟡" if told else "#### 🟢")


def test_the_next_step_where_nothing_failed_but_mail_stays_away() -> None:
    before = past([Totals(mails_received=count) for count in (40, 42, 38, 41, 39, 40, 43)])
    found = digest(types=[TypeCount("web.hit", 1, told=False)], before=before)
    assert (
        "**Next:** check that the mail connector still reads its folders: "
        "0 mails received (usually 40, from 38 to 43)."
    ) in found.text
    assert not found.failing


def test_unusual_cost_is_told_only_where_cost_is() -> None:
    before = past([Totals(cost_usd=Decimal("1.00"))] * 7)
    rows: dict[str, Any] = {
        "types": [TypeCount("web.hit", 1, told=False)],
        "usage": Usage(Decimal("9.00")),
        "before": before,
    }
    assert "**Unusual** · $9.00 of cost (usually $1.00, every day)" in digest(**rows).text
    facts = facts_from_rows(SUNDAY, **rows)
    quiet = render(facts, Config(include_cost_estimates=False), SUNDAY, ZONE, "Acme", LINKS)
    assert "$" not in quiet.text
    assert "cost" not in quiet.text
    assert quiet.text.startswith("#### 🟢")


def test_only_windows_of_a_like_length_within_seven_days_say_what_is_usual() -> None:
    long = Past(Window(SUNDAY.start - timedelta(hours=48), SUNDAY.start), Totals())
    old = Past(window(date(2026, 2, 28)), Totals())
    week = past([Totals()] * 7)
    assert last_week(SUNDAY, [long, *reversed(week), old]) == tuple(week)
    short = replace(week[0], window=window(date(2026, 3, 8)))
    assert short.window.length == timedelta(hours=23), "the clocks went forward"
    assert last_week(window(date(2026, 3, 9)), [short]) == (short,)


@given(
    st.lists(st.integers(0, 10**12), min_size=5, max_size=7),
    st.integers(0, 10**12),
    st.integers(1, 10**6),
    st.randoms(),
)
def test_what_is_unusual_depends_on_neither_order_nor_unit(
    values: list[int], today: int, unit: int, order: Any
) -> None:
    week = [Fraction(value) for value in values]
    known = usual(week)
    assert known is not None
    verdict = known.is_unusual(Fraction(today), Fraction(3))
    order.shuffle(week)
    assert usual(week) == known
    scaled = usual([value * unit for value in week])
    assert scaled is not None
    assert scaled.is_unusual(Fraction(today) * unit, Fraction(3) * unit) == verdict
    assert not any(known.is_unusual(value, Fraction(0)) for value in week)


def test_errors_that_no_window_before_had_are_new_and_absent_ones_gone() -> None:
    older = SeenError("a.failed", "", "network", 1, SUNDAY.start)
    last = (
        SeenError("b.failed", "", "network", 4, SUNDAY.start, "lead:b"),
        SeenError("c.failed", "@all", "network", 7, SUNDAY.start, "lead:c"),
        SeenError("d.failed", "", "auth", 1, SUNDAY.start),
    )
    week = past([Totals()] * 3, (older,))
    week[-1] = replace(week[-1], errors=last)
    errors = [group(name) for name in ("a.failed", "b.failed", "d.failed", "e.failed")]
    text = digest(errors=errors, before=week).text
    new = [line.split("`")[1] for line in text.splitlines() if "**new**" in line]
    assert new == ["d.failed", "e.failed"], "another kind of error is another error"
    assert text.splitlines()[0].endswith("4 errors (+4) · 2 new kinds")
    gone = next(line for line in text.splitlines() if line.startswith("**Gone"))
    assert gone == (
        "**Gone since the window before** · `c.failed` `@\u200ball` "
        "[7](https://fleet.example.com/console/timeline/lead%3Ac), `d.failed` 1"
    )


def test_errors_that_are_gone_are_counted_exactly() -> None:
    last = tuple(SeenError(f"e{n}.failed", "", "auth", n, SUNDAY.start) for n in range(1, 9))
    text = digest(
        before=past([Totals(errors=36)], last),
        outcomes=[Outcome("directive", "succeeded", "x.y", 1)],
    ).text
    assert "`e8.failed` 8, `e7.failed` 7, `e6.failed` 6, +5 more (sum 15)" in text
    assert text.startswith("#### 🟢")


def test_what_is_not_known_in_full_is_called_neither_new_nor_gone() -> None:
    hidden = group("", 9, names=3)
    today = [group("a.failed"), replace(hidden, name=None)]
    facts = facts_from_rows(SUNDAY, errors=today, before=past([Totals()], None))
    assert not any(facts.is_new(one) for one in facts.errors)
    last = (SeenError("b.failed", "", "network", 1, SUNDAY.start),)
    facts = facts_from_rows(SUNDAY, errors=today, before=past([Totals()], last))
    assert [facts.is_new(one) for one in facts.errors] == [True, False]
    assert facts.gone() == (), "it may be among those that are not listed"
    assert facts.as_past().errors is None
    assert "new kind" not in digest(errors=today, before=past([Totals()], last)).text
    # A window further back is not the one before.
    apart = [Past(WEEK[0], Totals(errors=9), last)]
    facts = facts_from_rows(SUNDAY, errors=[group("a.failed")], before=apart)
    assert (facts.previous, facts.gone()) == (None, ())
    assert not facts.is_new(facts.errors[0])


@pytest.mark.parametrize("day", [bad_day, good_day, dict])
def test_what_a_window_keeps_for_later_ones_reads_back(day: Any) -> None:
    kept = facts_from_rows(SUNDAY, **day()).as_past()
    assert Past.from_json(kept.as_json()) == kept
    without = {name: value for name, value in kept.as_json().items() if name != "errors"}
    assert Past.from_json(without).errors is None


@given(st.lists(st.integers(0, 10**15), max_size=9))
def test_bars_are_as_many_as_values_and_as_high(values: list[int]) -> None:
    bars = wording.sparkline([Fraction(value) for value in values])
    assert len(bars) == len(values)
    for (value, bar), (other, taller) in zip(
        zip(values, bars, strict=True), [*zip(values, bars, strict=True)][1:], strict=False
    ):
        assert (bar <= taller) if value <= other else (bar >= taller)
    assert all((bar == "▁") == (value == 0) for value, bar in zip(values, bars, strict=True))
    if any(values):
        assert bars[values.index(max(values))] == "█"


def test_the_course_shows_what_changed_and_leaves_out_what_did_not() -> None:
    week = [Totals(signals=100, errors=count, mails_received=50) for count in (0, 0, 7, 0, 0, 1, 0)]
    types = [*mails(50), TypeCount("web.hit", 50, told=False)]
    line = "**Course** of 8 digests, this one last · errors ▁▁█▁▁▂▁▁"
    assert line in digest(types=types, before=past(week)).text.splitlines()
    assert "Course" not in digest(types=types, before=past(week[-1:])).text


def test_mail_chat_and_connectors_have_lines_where_they_have_signals() -> None:
    types = [
        TypeCount(name, count, told=False)
        for name, count in (
            ("email.inbound.received", 12),
            ("email.draft.created", 3),
            ("email.draft.sent", 1),
            ("email.inbound.processed", 12),
            ("webchat.session.started", 4),
            ("webchat.message.received", 1),
            ("webchat.reply.sent", 2),
            ("webchat.escalation.created", 1),
            ("webchat.escalation.notified", 1),
            ("webchat.escalation.given_up", 1),
            ("webchat.test.completed", 1),
            ("webchat.conversation.assigned", 3),
            ("webchat.site.registered", 1),
            ("connector.heartbeat", 2876),
            ("shop.order.created", 5),
        )
    ]
    before = past([Totals(mails_received=10, chat_messages=1)])
    text = digest(types=types, before=before).text
    by_type = "https://dagster.example.com/assets/daily_counts?partition=2026-03-08%7Cacme&view=partitions"

    def page(type_: str = "") -> str:
        window = "since=2026-03-07T14%3A00%3A00Z&until=2026-03-08T13%3A00%3A00Z"
        chosen = f"type={type_}&" if type_ else ""
        return f"(https://fleet.example.com/console/signals?{chosen}{window})"

    assert (
        f"**Mail** · [12 received]{page('email.inbound.received')} (+2)"
        f" · [3 drafts written]{page('email.draft.created')}"
        f" · [1 draft sent]{page('email.draft.sent')}\n"
    ) in text
    assert (
        f"**Web chat** · [4 conversations]{page('webchat.session.started')}"
        f" · [1 message]{page('webchat.message.received')}"
        f" · [2 replies]{page('webchat.reply.sent')}"
        f" · [1 escalation]{page('webchat.escalation.created')}"
        f" · [1 escalation given up]{page('webchat.escalation.given_up')}\n"
    ) in text
    assert "Connectors" not in text
    assert (
        f"**Signals** · [2,924]{page()} (+2,924) · [by type]({by_type})"
        " · among them `shop.order.created`\n"
    ) in text
    quiet = digest(types=[TypeCount("shop.order.created", 5, told=False)]).text
    assert "Mail" not in quiet
    assert "chat" not in quiet


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (DeliveryRecord(), ""),
        (DeliveryRecord((("on time", 1),)), "1 of 1 digest in 30 days on time"),
        (
            DeliveryRecord((("on time", 25), ("late", 2), ("uncertain", 1), ("missed", 2)), 3),
            "25 of 30 digests in 30 days on time, 2 late, 1 uncertain, 2 missed, "
            "3 proven by reading back",
        ),
        (DeliveryRecord((("failed", 2),)), "0 of 2 digests in 30 days on time, 2 failed"),
    ],
)
def test_the_footer_tells_how_the_digest_itself_was_delivered(
    record: DeliveryRecord, told: str
) -> None:
    assert record.told() == told
    last = digest(record, types=mails(1)).text.splitlines()[-1]
    assert (told in last) if told else ("on time" not in last)


def test_changes_are_told_against_the_window_before_and_the_week() -> None:
    before = past([Totals(executions_completed=n) for n in (90, 80, 85, 88, 84, 86, 70)])
    outcomes = [Outcome("execution", "completed", "triage", 81)]
    text = digest(outcomes=outcomes, before=before).text
    assert "completed (+11, usually 85)" in text
    facts = facts_from_rows(SUNDAY, outcomes=outcomes, before=before)
    assert Trend(facts).median("executions_completed") == 85
    assert list(Trend(facts).unusual()) == []
