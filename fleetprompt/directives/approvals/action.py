"""What an approval is bound to: the canonical JSON of what the directive would do, and its hash.

Only what gives the action its meaning is in it; a hash over ids and times would tell apart what
does the same (research/messaging.md §5, ShieldCortex #183).
"""

from dataclasses import dataclass
from hashlib import sha256

from fleetprompt.directives.models import Directive
from fleetprompt.packages.canonical import canonical_json

# How the action is shown to people; goes up when that changes in a way that may change a decision.
RENDERING_VERSION = 1


@dataclass(frozen=True, slots=True)
class Action:
    """``text`` is RFC 8785 canonical JSON; ``sha256`` of its UTF-8 bytes is in hexadecimal."""

    text: str
    sha256: str


def action_of(directive: Directive) -> Action:
    """The directive's action as it stands now; InvalidError where it has no canonical form."""
    canonical = canonical_json(
        {"type": directive.type, "params": directive.params, "target": directive.target}
    )
    return Action(canonical.decode(), sha256(canonical).hexdigest())
