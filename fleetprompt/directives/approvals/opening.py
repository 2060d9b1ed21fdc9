"""Opening approvals: the one statement that does, for people's requests and for signal handlers'.

The database tells of each and asks for its notices (migration t0006), so that no way of opening one
can forget to.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.approvals.action import RENDERING_VERSION, action_of
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import InvalidError
from fleetprompt.ids import new_id

# An approval expires after its policy's time, or with its directive where that is sooner; LEAST
# passes over NULL.
OPEN = """
INSERT INTO approvals (id, directive_id, directive_type, version, action, action_sha256,
                       rendering_version, policy, policy_sha256, proposed_by, state, expires_at)
SELECT r.id, d.id, d.type, r.version, r.action, r.action_sha256, r.rendering_version, r.policy,
       r.policy_sha256, r.proposed_by, 'waiting',
       least(now() + make_interval(secs => (r.policy ->> 'expires_after_seconds')::float8),
             d.expires_at)
FROM jsonb_to_recordset(%s::jsonb) AS r(
    id uuid, directive_id uuid, version bigint, action text, action_sha256 text,
    rendering_version bigint, policy jsonb, policy_sha256 text, proposed_by text)
JOIN directives d ON d.id = r.directive_id
ORDER BY r.id
"""

_ASKED = """
SELECT d.id, d.type, d.params, d.target, d.actor,
       CASE WHEN p.directive_type IS NOT NULL THEN jsonb_build_object(
         'roles', p.roles, 'approvals', p.approvals, 'proposer_may_approve', p.proposer_may_approve,
         'expires_after_seconds', p.expires_after_seconds) END AS own_terms
FROM directives d LEFT JOIN approval_policies p ON p.directive_type = d.type
WHERE d.id = ANY(%s) ORDER BY d.id
"""

_CALL_OFF = """
UPDATE directives SET state = 'cancelled', changed_by = %s, error_kind = 'validation',
       error_message = %s, finished_at = clock_timestamp()
WHERE id = ANY(%s)
"""
NOT_SHOWABLE = "what it would do cannot be shown for approval: its params have no canonical form"


def opening(
    directive: Directive, policy: ApprovalPolicy, *, proposed_by: str, version: int
) -> dict[str, Any]:
    """A record for ``OPEN``, of the directive's action as it stands; InvalidError if it has none."""
    action = action_of(directive)
    return {
        "id": str(new_id()),
        "directive_id": str(directive.id),
        "version": version,
        "action": action.text,
        "action_sha256": action.sha256,
        "rendering_version": RENDERING_VERSION,
        "policy": policy.as_json(),
        "policy_sha256": policy.sha256,
        "proposed_by": proposed_by,
    }


def needing_approval(types: Mapping[str, AnyDirectiveType]) -> list[str]:
    """The names of the types that need approval by nature."""
    return [name for name, kind in types.items() if kind.approval is not None]


def waiting_of(made: Iterable[tuple[UUID, str]]) -> list[UUID]:
    """Of directives as ``(id, state)``, those that wait for an approval."""
    return [directive_id for directive_id, state in made if state == "awaiting_approval"]


async def open_for_handlers(
    connection: psycopg.AsyncConnection[Any],
    directive_ids: Sequence[UUID],
    types: Mapping[str, AnyDirectiveType],
) -> None:
    """Open the approvals of directives that this transaction made for signal handlers.

    ``connection`` is within the tenant's transaction. What cannot be shown to anybody is called off
    with the reason, rather than left waiting for ever.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ASKED, (list(directive_ids),))
        asked = await cursor.fetchall()
    records, not_showable = [], []
    for row in asked:
        kind = types.get(row["type"])
        inherited = kind.approval if kind is not None else None
        own = ApprovalPolicy.from_json(row["own_terms"]) if row["own_terms"] else None
        directive = Directive(
            id=row["id"], type=row["type"], params=row["params"], target=row["target"]
        )
        policy = own or inherited or ApprovalPolicy()
        try:
            records.append(opening(directive, policy, proposed_by=row["actor"], version=1))
        except InvalidError:
            not_showable.append(row["id"])
    if records:
        await connection.execute(OPEN, (json.dumps(records),))
    if not_showable:
        await connection.execute(_CALL_OFF, (PLATFORM.id, NOT_SHOWABLE, not_showable))
