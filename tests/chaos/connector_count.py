"""What became of each mail that arrived and of each that was to be sent."""

from collections import Counter
from dataclasses import dataclass, field

from fleetprompt_edge.store import Store

from tests.chaos.connector_office import Office
from tests.chaos.connector_world import World


@dataclass
class Outcome:
    """What was done and what was found."""

    kills: dict[str, int] = field(default_factory=dict)
    mails: int = 0
    signals: int = 0
    sends: int = 0
    states: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def count(
    outcome: Outcome,
    world: World,
    office: Office,
    subjects: list[str],
    failure: BaseException | None,
) -> None:
    """Compare what the platform has with what arrived and what was sent."""
    if failure is not None:
        outcome.differences.append(f"asking: {failure!r}")
    received = world.rows(
        "SELECT data->'message'->>'subject' FROM {schema}.signals"
        " WHERE type = 'email.inbound.received'"
    )
    told = Counter(row[0] for row in received or [])
    outcome.signals = told.total()
    outcome.differences += [f"{one} is lost" for one in subjects if not told[one]]
    outcome.differences += [f"{one} is there {n} times" for one, n in told.items() if n > 1]
    strange = told.keys() - set(subjects)
    outcome.differences += [f"{one} was never delivered" for one in strange]
    failed = world.rows(
        "SELECT data::text FROM {schema}.signals WHERE type = 'email.inbound.failed'"
    )
    outcome.differences += [f"told as failed: {row[0]}" for row in failed or []]
    _count_sends(outcome, world, office)
    with Store(world.customer.state) as store, store.transaction():
        dead = store.queue.dead_letters()
    outcome.differences += [f"refused: {one.type} {one.problem} {one.detail}" for one in dead]


def _count_sends(outcome: Outcome, world: World, office: Office) -> None:
    outcome.ends = dict(office.ends)
    outcome.differences += [f"{one} was sent {n} times" for one, n in office.taken.items() if n > 1]
    directives = world.rows("SELECT id::text, state FROM {schema}.directives") or []
    outcome.states = dict(Counter(state for _, state in directives))
    signals = world.rows(
        "SELECT subject_id, type, data->>'message_id' FROM {schema}.signals"
        " WHERE type LIKE 'email.outbound.%'"
    )
    told: dict[str, list[tuple[str, str]]] = {}
    for subject, kind, message_id in signals or []:
        told.setdefault(subject, []).append((kind.rpartition(".")[2], message_id))
    for directive_id, state in directives:
        ends = [one for one in told.get(directive_id, []) if one[0] != "requested"]
        went = [one for one in ends if office.taken[one[1]] == 1]
        true = {"succeeded": [("sent", True)], "failed": [("failed", False)]}.get(state)
        if [(kind, bool(went)) for kind, _ in ends] != true:
            outcome.differences.append(f"directive {directive_id} is {state}, told as {ends}")
    if len(directives) != outcome.sends:
        outcome.differences.append(f"{len(directives)} directives of {outcome.sends}")
    sent = {message_id for ends in told.values() for kind, message_id in ends if kind == "sent"}
    for message_id in office.taken.keys() - sent:
        outcome.differences.append(f"{message_id} was sent and is not told as sent")
