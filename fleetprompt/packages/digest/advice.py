"""What to do next: one sentence, by fixed rules, the most useful first."""

from collections.abc import Callable

from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.facts import DigestFacts
from fleetprompt.packages.digest.rows import ErrorGroup
from fleetprompt.packages.digest.trend import Trend
from fleetprompt.packages.digest.wording import Links


def lead(group: ErrorGroup, links: Links) -> str | None:
    """Where one looks into a group of errors: its run, its execution, else its timeline."""
    if (group.name or "").startswith("workflow.run."):
        address = links.run(group.run_id)
    elif group.name == "execution.failed":
        address = links.execution(group.execution_id)
    else:
        address = None
    return address or links.timeline(group.correlation_id) or links.execution(group.execution_id)


def advice(facts: DigestFacts, trend: Trend, links: Links) -> str:
    """The one next step, or nothing where none is needed."""
    for applies, sentence in _RULES:
        for group in facts.errors:
            if group.name is not None and applies(group):
                return _linked(sentence(group), group, links)
    if facts.waiting:
        waiting = wording.many(sum(row.count for row in facts.waiting), "directive")
        address = links.approvals()
        return f"decide on {wording.link(waiting, address)} waiting for approval."
    for one in trend.unusual():
        found = _UNUSUAL.get((one.measure.total, one.low))
        if found:
            return f"{found}: {one.sentence()}."
    return ""


def _linked(sentence: str, group: ErrorGroup, links: Links) -> str:
    address = lead(group, links)
    return f"{sentence} {wording.link('What happened', address)}" if address else sentence


def _subject(group: ErrorGroup) -> str:
    return wording.code(group.what or group.name or "")


def _service(group: ErrorGroup) -> str:
    """What needs the credential: the subject, else the family of the signal (``mattermost``)."""
    return wording.code(group.what or (group.name or "").partition(".")[0])


def _times(group: ErrorGroup) -> str:
    return wording.many(group.count, "time")


_RULES: tuple[tuple[Callable[[ErrorGroup], bool], Callable[[ErrorGroup], str]], ...] = (
    (
        lambda group: group.kind == "auth",
        lambda group: (
            f"renew the credential of {_service(group)}: it was refused "
            f"{_times(group)}, and retrying will not help."
        ),
    ),
    (
        lambda group: group.name == "directive.unknown",
        lambda group: (
            f"settle {wording.number(group.count)} × {_subject(group)} with unknown "
            "outcome: look whether it took effect before it is repeated."
        ),
    ),
    (
        lambda group: (group.name or "").startswith("package."),
        lambda group: (
            f"see why package {_subject(group)} failed "
            f"({wording.code((group.name or '').removesuffix('.failed'))}, {_times(group)}), "
            "then retry it."
        ),
    ),
    (
        lambda group: group.kind == "validation",
        lambda group: (
            f"correct what {_subject(group)} is given: it was refused as invalid "
            f"{_times(group)}, and retrying will not help."
        ),
    ),
    (
        lambda group: group.kind == "network",
        lambda group: (
            f"check that what {_subject(group)} talks to can be reached: it failed "
            f"{_times(group)}, retries included."
        ),
    ),
    (
        lambda group: group.kind == "rate_limit",
        lambda group: (
            f"slow {_subject(group)} down or raise its limit: it was throttled {_times(group)}."
        ),
    ),
    (
        lambda group: (group.name or "").startswith("workflow.run."),
        lambda group: (
            f"open the latest failed run of {_subject(group)}, which failed {_times(group)}."
        ),
    ),
    (
        lambda group: True,
        lambda group: f"start with {_subject(group)}, which failed {_times(group)}.",
    ),
)

# Where nothing failed: the total, and whether it is less than usual.
_UNUSUAL: dict[tuple[str, bool], str] = {
    ("cost_usd", False): "see what made executions cost so much",
    ("mails_received", True): "check that the mail connector still reads its folders",
    ("chat_messages", True): "check that the chat is still on the site",
    ("executions_completed", True): "check that the agents still get work",
    ("directives_succeeded", True): "check that work is still asked for",
}
