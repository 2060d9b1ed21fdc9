"""The order of the checks, and what each of them stands on."""

from pathlib import Path

from fleetprompt_edge import vault
from fleetprompt_edge.doctor import bridge, machine, platform
from fleetprompt_edge.doctor.findings import Examination, Finding
from fleetprompt_edge.profile import Profile


def examine(profile: Profile, folder: Path) -> list[Finding]:
    """Check everything that a running connector needs; nothing is sent but the two logins."""
    found = Examination(profile, folder)
    try:
        _on_this_machine(found)
        _at_bridge(found)
        _at_the_platform(found)
    finally:
        if found.session is not None:
            found.session.close()
    return found.findings


def _on_this_machine(found: Examination) -> None:
    found.check("disk", (), lambda: machine.disk(found.folder))
    found.check("database", ("disk",), lambda: machine.database(found.folder))
    found.check("queue", ("database",), lambda: machine.queue(found.profile, found.folder))
    found.check("secrets", (), lambda: machine.places(found))
    found.check(
        "bridge password", ("secrets",), lambda: machine.secret(found, vault.BRIDGE_PASSWORD)
    )
    found.check("platform key", ("secrets",), lambda: machine.secret(found, vault.API_KEY))


def _at_bridge(found: Examination) -> None:
    found.check("bridge port", (), lambda: bridge.port(found.profile))
    found.check("bridge certificate", ("bridge port",), lambda: bridge.certificate(found.profile))
    ground = ("bridge port", "bridge certificate", "bridge password")
    found.check("bridge login", ground, lambda: bridge.login(found))
    found.check("folders", ("bridge login",), lambda: bridge.folders(found))
    found.check("sending", ("bridge login",), lambda: bridge.sending(found))


def _at_the_platform(found: Examination) -> None:
    found.check("platform", ("platform key",), lambda: platform.reached(found))
    found.check("key", ("platform",), lambda: platform.key(found))
    found.check("clock", ("platform",), lambda: platform.clock(found))
