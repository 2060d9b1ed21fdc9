"""What the platform expects of connectors, in one place."""

import re
from datetime import timedelta

# Seconds between two heartbeats; a connector is told when it is paired.
HEARTBEAT = timedelta(seconds=60)
# After so many heartbeats in a row that did not come, a connector is silent.
MISSED_HEARTBEATS = 5
SILENT_AFTER = HEARTBEAT * MISSED_HEARTBEATS
# The longest that a poll for directives may wait.
LONGEST_WAIT = timedelta(seconds=30)
# Older connectors are paired and heard, with a warning.
OLDEST_VERSION = "0.1.0"
# The package whose installation connectors belong to.
PACKAGE = "proton_mail_edge_connector"

_VERSION = re.compile(
    r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


def version_warning(version: str | None) -> str | None:
    """What a person should know of a connector's version; None where all is well or nothing is known."""
    if version is None:
        return None
    told = _number(version)
    if told is None:
        return (
            "It does not say its version as FleetPrompt's connector does. "
            f"Install {OLDEST_VERSION} or newer."
        )
    if told < _OLDEST:
        return (
            f"Version {version} is older than {OLDEST_VERSION}, the oldest that is supported. "
            "Update the connector."
        )
    return None


def _number(version: str) -> tuple[int, int, int, bool] | None:
    """Ordered as by https://semver.org §11, as far as numbers go: a pre-release before its release."""
    found = _VERSION.fullmatch(version)
    return found and (int(found[1]), int(found[2]), int(found[3]), found[4] is None)


_OLDEST = _number(OLDEST_VERSION) or (0, 0, 0, True)
