"""``audit`` and ``explain-payload``: looking at the mailbox beside a connector that may be running."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetprompt_edge import vault
from fleetprompt_edge.bridge_servers import knock
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.commands.shared import (
    OK,
    TO_MEND,
    UNHEALTHY,
    answering,
    moment,
    opened,
    profile_of,
)
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.imap.folders import watched_folders
from fleetprompt_edge.ingest.fetching import each
from fleetprompt_edge.ingest.reader import BATCH
from fleetprompt_edge.ingest.setup import fetcher_for, mail_signals
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.identity import identity
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.store import Store
from fleetprompt_edge.telling import tell


@answering
def explain(asked: argparse.Namespace) -> int:
    """Show the very signal that would be sent of one mail. Nothing is sent, nothing is remembered."""
    profile, folder = profile_of(asked)
    with opened(folder) as store, _session(profile, folder) as session:
        session.examine(asked.folder)
        heads = session.heads([asked.uid])
        if asked.uid not in heads:
            tell(asked, {"ok": False}, f"No mail has the UID {asked.uid} in {asked.folder}.")
            return TO_MEND
        head = heads[asked.uid]
        headers = Headers(head.header)
        with store.transaction():
            tenant = store.notes.get("tenant") or "TENANT"
            kept = store.notes.get("organization_id")
        privacy = profile.privacy
        with_body = privacy.send_body and privacy.send_body_to_organization == kept
        signals = mail_signals(store, Writer(profile, tenant), with_body=with_body)
        found = identity(head, headers)
        fetcher = fetcher_for(profile, with_body=with_body)
        mails, _ = fetcher.complete(session, asked.folder, [(found, head, headers)])
        mail = mails[0] if mails else fetcher.bare(asked.folder, found, head, headers)
        key = signals.dedupe_key(mail, lambda _: False)
        signal = signals.received(mail, key, SystemClock().now())
    content = {"ok": True, "bytes": len(signal.body.encode()), "signal": json.loads(signal.body)}
    tell(asked, content, json.dumps(content["signal"], indent=2, ensure_ascii=False))
    return OK


@answering
def audit(asked: argparse.Namespace) -> int:
    """Compare the mailbox with the ledger: has every mail since then been told?"""
    profile, folder = profile_of(asked)
    counts: dict[str, int] = {}
    missing: list[dict[str, Any]] = []
    with opened(folder) as store, _session(profile, folder) as session:
        watched = watched_folders(profile.mailbox, session.folders())
        for one in watched:
            if one.role != "inbound":
                continue
            for found in _audited(session, store, one.name, asked.since):
                counts[found["state"]] = counts.get(found["state"], 0) + 1
                if found["state"] == "missing":
                    missing.append(found)
    complete = not missing
    lines = [f"{count} {state}" for state, count in sorted(counts.items())] or ["no mail"]
    lines += [f"missing: {one['folder']} UID {one['uid']}, {one['arrived']}" for one in missing]
    lines.append("Nothing is missing." if complete else f"{len(missing)} mails are missing.")
    content = {"ok": complete, "since": moment(asked.since), "counts": counts, "missing": missing}
    tell(asked, content, "\n".join(lines))
    return OK if complete else UNHEALTHY


def _audited(
    session: BridgeSession, store: Store, name: str, since: int
) -> Iterator[dict[str, Any]]:
    """Each mail of a folder since then: ``told``, ``waiting`` to be sent, ``refused``, ``unreadable``,
    ``old`` (there before the connector), ``not looked at yet``, or ``missing``."""
    examined = session.examine(name)
    with store.transaction():
        folder = store.ledger.folder(name)
        waiting = {one.dedupe_key for one in store.queue.first(1 << 30, 1 << 40)}
        refused = {one.dedupe_key for one in store.queue.dead_letters()}
        retried = {one.uid for one in store.ledger.unreadable(folder.id)} if folder else set()
    renumbered = folder is not None and folder.uidvalidity != examined.uidvalidity
    recent = [one for one in session.scan(1, None) if one.arrived is None or one.arrived >= since]
    for at in range(0, len(recent), BATCH):
        batch = {one.uid: one for one in recent[at : at + BATCH]}
        heads, _ = each(session.heads, sorted(batch))
        for uid, seen in batch.items():
            state = "missing"
            if uid in heads:
                head = heads[uid]
                with store.transaction():
                    known = store.ledger.find(identity(head, Headers(head.header)))
                if known is not None and known.dedupe_key is not None:
                    state = "waiting" if known.dedupe_key in waiting else "told"
                    state = "refused" if known.dedupe_key in refused else state
                elif known is not None:
                    state = "old"
            if state == "missing":
                state = _unknown(folder, uid, seen.arrived, retried, renumbered=renumbered)
            yield {"folder": name, "uid": uid, "arrived": moment(seen.arrived), "state": state}


def _unknown(
    folder: Any, uid: int, arrived: int | None, retried: set[int], *, renumbered: bool
) -> str:
    if folder is None or renumbered or uid > folder.seen_up_to:
        return "not looked at yet"
    if uid in retried:
        return "unreadable"
    old = uid <= folder.old_up_to or (arrived is not None and arrived < folder.old_before)
    return "old" if old else "missing"


@contextmanager
def _session(profile: Profile, folder: Path) -> Iterator[BridgeSession]:
    session = knock(profile, vault.read(profile, folder, vault.BRIDGE_PASSWORD))
    try:
        yield session
    finally:
        session.close()
