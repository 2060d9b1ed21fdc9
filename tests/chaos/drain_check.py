"""What must hold of every directive when the killing is over, read from the tables alone."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from fleetprompt.db.engine import quote_identifier
from fleetprompt.directives.queue import LOST_WORKER
from fleetprompt.tenants.service import Tenant

_LOOK = """
SELECT d.id, d.type, d.state, d.attempt, d.max_attempts, d.result,
  num_nonnulls(d.lease_token, d.lease_owner, d.lease_expires_at) AS leased,
  d.finished_at IS NOT NULL AS finished,
  (SELECT jsonb_agg(jsonb_build_array(t.from_state, t.to_state, t.attempt, t.changed_by,
                                      t.error_message) ORDER BY t.id)
   FROM {0}.directive_transitions t WHERE t.directive_id = d.id) AS steps,
  ARRAY(SELECT 'directive_transition:' || t.id FROM {0}.directive_transitions t
        WHERE t.directive_id = d.id ORDER BY t.id) AS step_ids,
  (SELECT jsonb_agg(jsonb_build_array(s.type, s.source_event_id) ORDER BY s.id)
   FROM {0}.signals s WHERE s.subject_id = d.id::text) AS told,
  (SELECT jsonb_agg(jsonb_build_array(e.state, e.finished_at IS NOT NULL))
   FROM {0}.executions e WHERE e.directive_id = d.id) AS executions
FROM {0}.directives d
"""


def check(
    url: str,
    asked: Mapping[str, tuple[Tenant, UUID]],
    applied: Mapping[str, int],
    counts: Counter[str],
) -> list[str]:
    """What is wrong. ``asked`` has each directive by its key, ``applied`` the effects by theirs."""
    wrong: list[str] = []
    tenants = {tenant.schema for tenant, _ in asked.values()}
    expected = {directive_id for _, directive_id in asked.values()}
    found: set[UUID] = set()
    effects: set[str] = set()
    with psycopg.connect(url, row_factory=namedtuple_row) as connection:
        for schema in tenants:
            rows: list[Any] = connection.execute(_LOOK.format(quote_identifier(schema))).fetchall()
            for row in rows:
                found.add(row.id)
                counts[row.state] += 1
                counts["attempts"] += row.attempt
                wrong += [f"{row.type} {row.id}: {told}" for told in _wrong_with(row, counts)]
                if row.type == "chaos.effect":
                    effects.add(str(row.id))
        queued = connection.execute("SELECT count(*) FROM fleetprompt.directive_queue").fetchone()
    if queued is None or queued[0]:
        wrong.append(f"{queued} rows are left in the index table")
    wrong += [f"{one} was acknowledged and is lost" for one in expected - found]
    wrong += [f"{one} was never acknowledged to anybody" for one in found - expected]
    wrong += [f"the effect of {one} took place {applied.get(one, 0)} times" for one in effects
              if applied.get(one) != 1]  # fmt: skip
    wrong += [f"an effect of {one}, which is no directive" for one in set(applied) - effects]
    return wrong


def _wrong_with(row: Any, counts: Counter[str]) -> list[str]:
    begun: dict[int, str] = {}
    ends: Counter[int] = Counter()
    wrong = []
    before = ""
    for from_state, to_state, attempt, by, message in row.steps:
        if from_state != before:
            wrong.append(f"a step from {from_state} after one to {before}")
        before = to_state
        if to_state == "running":
            if attempt in begun:
                wrong.append(f"attempt {attempt} began twice")
            begun[attempt] = by
        if from_state == "running":
            ends[attempt] += 1
            lost = message == LOST_WORKER
            counts["rescued"] += lost
            # Its own worker ends it, or somebody else says that nobody knows; nothing else.
            holds = to_state in ("pending", "unknown") if lost else by == begun.get(attempt)
            if not holds:
                wrong.append(f"attempt {attempt} of {begun.get(attempt)} ended {to_state} by {by}")
    rules = {
        "it has ended": row.finished,
        "only two lost workers make an end unknown": row.state == "succeeded"
        or (row.type == "chaos.fragile" and row.state == "unknown"),
        "its state is that of its last step": row.state == before,
        "each attempt began and ended once": [*begun] == [*range(1, row.attempt + 1)]
        and ends == Counter([*begun]),
        "no attempt beyond the last": row.attempt <= row.max_attempts,
        "T12: what it says is said by its last attempt": row.state != "succeeded"
        or row.result == {"attempt": row.attempt, "by": begun.get(row.attempt)},
        "T16: one lifecycle signal a step, in the same order": row.told
        == [
            [f"directive.{to_state}", step_id]
            for (_, to_state, *_), step_id in zip(row.steps, row.step_ids, strict=True)
        ],
        "no lease is left": row.leased == 0,
        "one execution, ended as it did": row.executions
        == [["completed" if row.state == "succeeded" else "failed", True]],
    }
    wrong += [f"not true: {name}" for name, holds in rules.items() if not holds]
    return [f"{one}; {json.dumps(row.steps)}" for one in wrong[:1]]


def names_of_lost_attempts(url: str, schemas: Sequence[str]) -> Counter[str]:
    """How many attempts each worker lost, by its name."""
    lost: Counter[str] = Counter()
    with psycopg.connect(url) as connection:
        for schema in schemas:
            rows = connection.execute(
                f"SELECT b.changed_by FROM {quote_identifier(schema)}.directive_transitions e"
                f" JOIN {quote_identifier(schema)}.directive_transitions b"
                "   ON b.directive_id = e.directive_id AND b.attempt = e.attempt"
                "   AND b.to_state = 'running'"
                " WHERE e.from_state = 'running' AND e.error_message = %s",
                (LOST_WORKER,),
            )
            lost.update(name for (name,) in rows.fetchall())
    return lost
