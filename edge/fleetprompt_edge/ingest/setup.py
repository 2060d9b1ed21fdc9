"""Putting a reader together as the profile says."""

import secrets
from threading import Event

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.ingest.fetching import SNIPPET_BYTES, Fetcher
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.reader import Reader
from fleetprompt_edge.ingest.telling import Teller
from fleetprompt_edge.mail.signals import MailSignals
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.store import Store

_ADDRESS_KEY = "address_key"


def reader_for(
    store: Store, writer: Writer, clock: Clock, pace: Pace, stop: Event, *, with_body: bool
) -> Reader:
    """The reader; ``with_body`` only if the key is of the organization that the profile names."""
    signals = mail_signals(store, writer, with_body=with_body)
    return Reader(
        store,
        fetcher_for(writer.profile, with_body=with_body),
        Teller(store, writer, signals, clock),
        clock,
        pace,
        most_bytes=writer.profile.limits.max_queue_bytes,
        stop=stop,
    )


def fetcher_for(profile: Profile, *, with_body: bool) -> Fetcher:
    """Reads no more of a mail than its signal needs."""
    privacy = profile.privacy
    text_bytes = SNIPPET_BYTES if privacy.send_snippet else 0
    if with_body:
        # Four bytes are the most that a character takes, and base64 adds a third.
        text_bytes = max(text_bytes, privacy.body_max_characters * 6)
    return Fetcher(
        text_bytes=text_bytes,
        attachments=privacy.attachment_mode != "none",
        unwanted=profile.mailbox.exclude_senders,
    )


def mail_signals(store: Store, writer: Writer, *, with_body: bool) -> MailSignals:
    """Tells of mail. The key for hashed addresses is made once and stays in the store."""
    with store.transaction():
        key = store.notes.get(_ADDRESS_KEY)
        if key is None:
            key = secrets.token_hex(32)
            store.notes.put(_ADDRESS_KEY, key)
    profile = writer.profile
    own = [profile.bridge.username, *profile.sending.allowed_from_addresses]
    return MailSignals(writer, bytes.fromhex(key), own, with_body=with_body)
