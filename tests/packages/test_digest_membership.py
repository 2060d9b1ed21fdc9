"""However signals fall into windows, and however late their commits come, each is counted once."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.packages.digest.collect import Previous, collect
from fleetprompt.schedules.local_time import Window
from fleetprompt.tenants.service import Tenant
from tests.packages.test_digest_collect import START, signal

# Transactions held open at once; each takes a connection.
_MOST_HELD = 3


@dataclass(frozen=True)
class Stored:
    """A signal: the window it is stored in and how far into it, by when it is committed, how old it is.

    ``held`` is the number of collections during which its transaction stays open; ``early`` whether
    the digest of the window before is collected so late that it is stored already.
    """

    window: int
    minute: int
    held: int
    early: bool
    hours_old: int


stored = st.builds(
    Stored,
    window=st.integers(0, 3),
    minute=st.integers(0, 10**6),
    held=st.sampled_from((0, 0, 0, 1, 2, 4)),
    early=st.booleans(),
    hours_old=st.sampled_from((0, 0, 1, 30)),
)


@given(
    lengths=st.lists(st.sampled_from((1, 22, 23, 24, 25, 48)), min_size=4, max_size=4),
    signals=st.lists(stored, max_size=14),
)
@example(
    lengths=[24, 23, 24, 25],
    signals=[Stored(0, 0, 1, False, 0), Stored(0, 1439, 0, False, 0), Stored(1, 0, 0, True, 30)],
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_trap_27_any_split_into_windows_counts_each_signal_exactly_once(
    database: Database, tenant: Tenant, lengths: list[int], signals: list[Stored]
) -> None:
    ends = [START + timedelta(hours=sum(lengths[:n])) for n in range(len(lengths) + 1)]
    # The last window holds nothing of its own: what is left over must be in it.
    ends.append(ends[-1] + timedelta(hours=24))
    windows = [Window(*pair) for pair in pairwise(ends)]
    async with database.tenant(tenant.schema) as session:
        await session.execute(text("DELETE FROM signals"))
    occurred = {}
    counted: list[str] = []
    previous: Previous | None = None
    async with AsyncExitStack() as still_open:
        held: dict[int, AsyncExitStack] = {}
        for number, window in enumerate(windows):
            for index, one in enumerate(signals):
                if number != max(0, one.window - one.early):
                    continue
                within = windows[one.window]
                at = within.start + timedelta(minutes=one.minute) % within.length
                name = f"web.hit_{index}"
                occurred[name] = at - timedelta(hours=one.hours_old)
                transaction = await still_open.enter_async_context(AsyncExitStack())
                session = await transaction.enter_async_context(database.tenant(tenant.schema))
                await signal(session, name, at, occurred=occurred[name])
                if one.held and len(held) < _MOST_HELD and number < len(lengths):
                    held[index] = transaction
                else:
                    await transaction.aclose()
            async with database.tenant(tenant.schema) as session:
                found = await collect(session, window, previous)
                assert await collect(session, window, previous, again=found.cut) == found
            names = [row.name or "" for row in found.facts.types for _ in range(row.count)]
            counted += names
            assert found.facts.late == sum(occurred[name] < window.start for name in names)
            for index in list(held):
                # Before the last collection everything has ended.
                over = number >= signals[index].window + signals[index].held
                if over or number == len(lengths) - 1:
                    await held.pop(index).aclose()
            previous = Previous(window, found.cut, found.facts.as_past())
    assert sorted(counted) == sorted(occurred)
    assert len(counted) == len(signals)
