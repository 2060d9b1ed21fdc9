"""Times, cursors and the pages behind them."""

from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from fleetprompt_api.wire import Wire, make_cursor, read_cursor
from hypothesis import given
from hypothesis import strategies as st

from fleetprompt.errors import InvalidError


class _Told(Wire):
    at: datetime
    none: datetime | None = None


def test_a_time_in_any_zone_is_told_in_utc() -> None:
    there = datetime(2026, 1, 6, 9, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert _Told(at=there).model_dump_json() == '{"at":"2026-01-06T03:30:00Z","none":null}'


@given(st.uuids())
def test_a_cursor_leads_back_to_its_id(last: UUID) -> None:
    assert read_cursor(make_cursor(last)) == last


@given(st.text(max_size=64).filter(lambda text: len(text) != 22))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidError) as refused:
        read_cursor(text)
    assert refused.value.errors[0]["pointer"] == "#query/cursor"


def test_no_cursor_is_the_first_page() -> None:
    assert read_cursor(None) is None
