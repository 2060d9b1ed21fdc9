"""What a notice says, safe for Mattermost whatever the params hold (digest's research, traps 14, 15)."""

import json
from datetime import UTC, datetime
from typing import Any

from fleetprompt import secrets
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.outbound.transports.mattermost import code_span, plain

_PARAMS = 8
_NAME_LIMIT = 60
_VALUE_LIMIT = 160
_LEFT_OUT = "left out: looks like a secret"


def render_notice(
    approval: Approval,
    kind: AnyDirectiveType | None,
    *,
    reminder: bool,
    proposer: str,
    approved: int,
    page: str,
) -> str:
    """Who asks for what, until when, and who may decide, with a link to the ``page`` that shows it.

    The link only shows; deciding takes a POST from there. ``approved`` is how many did already.
    """
    policy = ApprovalPolicy.from_json(approval.policy)
    heading = "Still waits for approval" if reminder else "Waits for approval"
    version = f", version {approval.version}" if approval.version > 1 else ""
    lines = [f"#### {heading}: {code_span(approval.directive_type, _NAME_LIMIT)}"]
    if kind is not None:
        lines.append(plain(kind.summary))
    lines += [
        f"Asked by {code_span(proposer, _NAME_LIMIT)}{version}, until **{_time(approval.expires_at)}**.",
        _deciders(policy, approved),
        "",
        *_params(json.loads(approval.action)["params"]),
        "",
        f"[Look at it and decide]({page})",
    ]
    return "\n".join(lines)


def render_summary(waiting: int, untold: int, first_expiry: datetime, page: str) -> str:
    """One message in place of many: how much waits, of which ``untold`` had no notice of its own."""
    total = "1 directive waits" if waiting == 1 else f"{waiting:,} directives wait"
    return "\n".join(
        [
            f"#### {total} for approval",
            f"{untold:,} of them had no notice of their own, to keep this channel readable.",
            f"The first expires **{_time(first_expiry)}**.",
            "",
            f"[Look at all that waits]({page})",
        ]
    )


def _deciders(policy: ApprovalPolicy, approved: int) -> str:
    roles = " or ".join(sorted(policy.roles))
    others = "" if policy.proposer_may_approve else ", but nobody who proposed it"
    if policy.approvals == 1:
        return f"One person may decide who is {roles}{others}."
    given = f", {approved} of them given" if approved else ""
    return f"It takes {policy.approvals} approvals{given}, by people who are {roles}{others}."


def _params(params: dict[str, Any]) -> list[str]:
    hidden = {pointer.split("/")[1] for pointer, _ in secrets.find(params) if pointer}
    shown = list(params.items())[:_PARAMS]
    lines = [
        f"- {code_span(name, _NAME_LIMIT)}: "
        + (f"*{_LEFT_OUT}*" if _escaped(name) in hidden else code_span(_line(value), _VALUE_LIMIT))
        for name, value in shown
    ]
    if len(params) > len(shown):
        lines.append(f"- and {len(params) - len(shown)} more")
    return lines


def _line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return secrets.redact(text)


def _escaped(name: str) -> str:
    """A name as a segment of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
