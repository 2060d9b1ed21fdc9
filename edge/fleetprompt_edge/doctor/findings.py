"""A check's outcome, and how one check stands on another."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fleetprompt_edge.errors import EdgeError
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.upload.platform import Me


@dataclass
class Finding:
    """What a check found. ``skipped``: something that it stands on is not well."""

    name: str
    state: Literal["well", "bad", "skipped"]
    message: str = ""
    remedy: str = ""


@dataclass
class Examination:
    """The checks in their order, and what they found out for those behind them."""

    profile: Profile
    folder: Path
    findings: list[Finding] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    session: BridgeSession | None = None
    me: Me | None = None

    def check(self, name: str, needs: tuple[str, ...], work: Callable[[], str]) -> None:
        """Run one check if those that it needs went well: one root cause shows alone."""
        not_well = {one.name for one in self.findings if one.state != "well"}
        if not_well & set(needs):
            self.findings.append(Finding(name, "skipped"))
            return
        try:
            self.findings.append(Finding(name, "well", work()))
        except EdgeError as error:
            self.findings.append(Finding(name, "bad", error.message, error.remedy))
