"""``run`` and ``status``."""

import argparse
import json
import signal
from datetime import UTC, datetime

from fleetprompt_edge import __version__, log, vault
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.commands.shared import OK, UNHEALTHY, answer, answering, opened, profile_of
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.mail.signals import wanted_headers
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.running.connector import Connector
from fleetprompt_edge.running.health import PROBLEMS
from fleetprompt_edge.running.watch import LAST_POLL
from fleetprompt_edge.sending.smtp import Courier
from fleetprompt_edge.store import ProfileLock
from fleetprompt_edge.store.lock import running_process
from fleetprompt_edge.upload.platform import Platform

# IDLE goes on for so long before the folder is looked at anyway, which is also when a dead connection
# and a backfill that was asked for are noticed.
_IDLE_SECONDS = 60.0
_SILENT = 3  # heartbeats that a running connector may miss


def knock(profile: Profile, password: str) -> BridgeSession:
    """A session with Bridge, logged in, as the profile says."""
    session = BridgeSession(
        profile.bridge.imap,
        profile.bridge.certificate_sha256,
        wanted_headers(profile.privacy),
        idle_seconds=_IDLE_SECONDS if profile.mailbox.idle else 0.0,
    )
    try:
        session.login(profile.bridge.username, password)
    except BaseException:
        session.close()
        raise
    return session


@answering
def run(asked: argparse.Namespace) -> int:
    """Work until told to stop."""
    profile, folder = profile_of(asked)
    password = vault.read(profile, folder, vault.BRIDGE_PASSWORD)
    key = vault.read(profile, folder, vault.API_KEY)
    log.start(profile.connector_id, (password, key), debug=asked.debug)
    clock = SystemClock()
    with ProfileLock(folder), opened(folder) as store:
        platform = Platform(profile.fleetprompt.base_url, key, clock)
        courier = Courier(profile, password, clock)
        connector = Connector(
            profile, store, lambda: knock(profile, password), platform, clock, courier
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: connector.stop())
        log.logger.info("started", extra={"version": __version__, "state": str(folder)})
        connector.run()
    return OK


@answering
def status(asked: argparse.Namespace) -> int:
    """How the connector is; the exit code says whether it is well."""
    profile, folder = profile_of(asked)
    process = running_process(folder)
    with opened(folder) as store, store.transaction():
        found = [json.loads(text) for text in store.notes.under(PROBLEMS).values()]
        polls = store.notes.under(LAST_POLL)
        backlog = store.queue.backlog()
        mails = store.ledger.counts()
        alive_at = store.notes.get("alive_at")
        last_post = store.notes.get("last_post")
    if process is None:
        found.insert(
            0,
            {
                "place": "connector",
                "code": "not_running",
                "message": "It is not running.",
                "remedy": "Start it: `fleetprompt-edge run`.",
            },
        )
    elif alive_at and _age(alive_at) > _SILENT * profile.health.heartbeat_interval_seconds:
        found.insert(
            0,
            {
                "place": "connector",
                "code": "silent",
                "message": f"It runs and has not beaten its heart since {alive_at}.",
                "remedy": "See its logs; restart it.",
            },
        )
    if backlog.dead_letters:
        found.append(
            {
                "place": "queue",
                "code": "dead_letters",
                "message": f"FleetPrompt refused {backlog.dead_letters} signals.",
                "remedy": "See them: `fleetprompt-edge queue list`.",
            }
        )
    healthy = not found
    content = {
        "ok": healthy,
        "version": __version__,
        "process": process,
        "connector_id": profile.connector_id,
        "state": str(folder),
        "last_poll_at": polls,
        "last_post_at": last_post,
        "queue": {"signals": backlog.signals, "bytes": backlog.bytes},
        "dead_letters": backlog.dead_letters,
        "mails": mails,
        "problems": found,
    }
    lines = ["well" if healthy else "not well"]
    lines += [
        f"- {one['place']}: {one['message']} {one.get('remedy', '')}".rstrip() for one in found
    ]
    lines += [f"last look at {name}: {at}" for name, at in polls.items()]
    lines.append(f"last post: {last_post or 'never'}; {backlog.signals} signals wait")
    answer(asked, content, "\n".join(lines))
    return OK if healthy else UNHEALTHY


def _age(stamped: str) -> float:
    then = datetime.fromisoformat(stamped.replace("Z", "+00:00"))
    return (datetime.now(UTC) - then).total_seconds()
