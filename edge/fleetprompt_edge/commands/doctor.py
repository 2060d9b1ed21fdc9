"""``doctor``: everything that may be wrong, with its cause and how to mend it."""

import argparse
from collections.abc import Sequence

from fleetprompt_edge.commands.shared import OK, UNHEALTHY, answering, profile_of
from fleetprompt_edge.doctor.examine import examine
from fleetprompt_edge.doctor.findings import Finding
from fleetprompt_edge.telling import tell


@answering
def doctor(asked: argparse.Namespace) -> int:
    """Check everything; the exit code says whether all is well."""
    findings = examine(*profile_of(asked))
    bad = [one.name for one in findings if one.state == "bad"]
    content = {"ok": not bad, "checks": [vars(one) for one in findings]}
    tell(asked, content, "\n".join(_lines(findings)))
    return UNHEALTHY if bad else OK


def _lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for one in findings:
        lines.append(f"{one.state:7} {one.name}: {one.message}".rstrip(": "))
        if one.remedy:
            lines.append(f"        → {one.remedy}")
    return lines
