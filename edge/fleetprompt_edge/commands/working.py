"""``run``, ``status`` and ``debug``."""

import argparse
import signal
import time

from fleetprompt_edge import __version__, log, vault
from fleetprompt_edge.bridge_servers import knock
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.commands.shared import OK, UNHEALTHY, answering, moment, opened, profile_of
from fleetprompt_edge.condition import Condition, condition
from fleetprompt_edge.running.connector import Connector
from fleetprompt_edge.sending.smtp import Courier
from fleetprompt_edge.service.keeper import DEBUG_UNTIL, Keeper
from fleetprompt_edge.service.notice import Notice
from fleetprompt_edge.store import ProfileLock
from fleetprompt_edge.telling import tell
from fleetprompt_edge.upload.platform import Platform


@answering
def run(asked: argparse.Namespace) -> int:
    """Work until told to stop."""
    profile, folder = profile_of(asked)
    password = vault.read(profile, folder, vault.BRIDGE_PASSWORD)
    key = vault.read(profile, folder, vault.API_KEY)
    clock = SystemClock()
    with ProfileLock(folder, patience=2), opened(folder) as store:
        log.start(profile.connector_id, (password, key), debug=asked.debug, folder=folder)
        platform = Platform(profile.fleetprompt.base_url, key, clock)
        courier = Courier(profile, password, clock)
        connector = Connector(
            profile, store, lambda: knock(profile, password), platform, clock, courier
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: connector.stop())
        log.logger.info("started", extra={"version": __version__, "state": str(folder)})
        keeper = Keeper(store, Notice(), clock, debug=asked.debug)
        keeper.start()
        try:
            connector.run()
        finally:
            keeper.stop()
    return OK


@answering
def status(asked: argparse.Namespace) -> int:
    """How the connector is; the exit code says whether it is well."""
    profile, folder = profile_of(asked)
    if asked.page:
        from fleetprompt_edge.page.server import show

        return show(
            profile,
            folder,
            minutes=asked.minutes,
            say=lambda text: tell(asked, {"url": text}, text),
        )
    found = condition(profile, folder)
    tell(asked, found.content(), "\n".join(_lines(found)))
    return OK if found.well else UNHEALTHY


def _lines(found: Condition) -> list[str]:
    return [
        "well" if found.well else "not well",
        *(
            f"- {one['place']}: {one['message']} {one.get('remedy', '')}".rstrip()
            for one in found.problems
        ),
        *(f"last look at {name}: {at}" for name, at in found.last_poll_at.items()),
        f"last post: {found.last_post_at or 'never'}; {found.queue['signals']} signals wait",
    ]


@answering
def debug(asked: argparse.Namespace) -> int:
    """Turn debug logs of a running connector on for a while, or off."""
    _, folder = profile_of(asked)
    until = int(time.time()) + asked.minutes * 60 if asked.switch == "on" else None
    with opened(folder) as store, store.transaction():
        if until is None:
            store.notes.remove(DEBUG_UNTIL)
        else:
            store.notes.put(DEBUG_UNTIL, str(until))
    words = f"Debug logs are on until {moment(until)}." if until else "Debug logs are off."
    tell(asked, {"ok": True, "debug_until": moment(until)}, words)
    return OK
