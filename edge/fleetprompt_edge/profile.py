"""A profile: everything the connector may be told about one mail account, save its secrets.

The dataclasses below are the one declaration of every option: the check, the defaults, the file
that ``init`` writes and ``config show`` all follow from them.
"""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from fleetprompt_edge import kinds


def option(read: kinds.Reader, about: str, default: Any = MISSING) -> Any:
    """A dataclass field for an option; without a default it is required."""
    return field(default=default, metadata={"read": read, "about": about})


def table(kind: type[Any], about: str) -> dict[str, Any]:
    """The metadata of a dataclass field for a TOML table of options."""
    return {"table": kind, "about": about}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPrompt:
    """Where signals go."""

    base_url: str = option(kinds.base_url, "Address of the FleetPrompt server.")
    organization_id: str | None = option(
        kinds.identifier,
        "Id of the organization this profile belongs to. The server decides by the API key.",
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imap:
    """Bridge's IMAP server."""

    host: str = option(kinds.host, "Address that Bridge listens on.", "127.0.0.1")
    port: int = option(
        kinds.whole_number(1, 65535),
        "Port shown in Bridge's settings; Bridge takes the next free one from 1143.",
        1143,
    )
    tls: str = option(
        kinds.one_of("starttls", "implicit"),
        "Connection mode shown in Bridge's settings: starttls, or implicit (called SSL there).",
        "starttls",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """Bridge's SMTP server."""

    host: str = option(kinds.host, "Address that Bridge listens on.", "127.0.0.1")
    port: int = option(
        kinds.whole_number(1, 65535),
        "Port shown in Bridge's settings; Bridge takes the next free one from 1025.",
        1025,
    )
    tls: str = option(
        kinds.one_of("starttls", "implicit"),
        "Connection mode shown in Bridge's settings: starttls, or implicit (called SSL there).",
        "starttls",
    )
    timeout_seconds: int = option(
        kinds.whole_number(121, 900),
        "Seconds to wait for an answer. Above 120: Bridge itself may wait that long and still send.",
        150,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """Proton Mail Bridge on this machine or network."""

    username: str = option(
        kinds.text, "User name shown in Bridge's settings; any address of the account."
    )
    certificate_sha256: str | None = option(
        kinds.fingerprint,
        "SHA-256 fingerprint of Bridge's certificate; `fleetprompt-edge doctor` shows it.",
        None,
    )
    imap: Imap = field(metadata=table(Imap, "Bridge's IMAP server."))
    smtp: Smtp = field(metadata=table(Smtp, "Bridge's SMTP server."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """Which mail is looked at, and how often."""

    folders: tuple[str, ...] = option(
        kinds.list_of(kinds.text, least=1),
        "Folders to watch, as Bridge names them, by pattern, such as 'Folders/*', or by attribute, such as "
        "'\\Archive'.",
        ("INBOX",),
    )
    exclude_folders: tuple[str, ...] = option(
        kinds.list_of(kinds.text),
        "Folders not to watch though a pattern or attribute means them; names or patterns.",
        (),
    )
    exclude_senders: tuple[str, ...] = option(
        kinds.list_of(kinds.sender),
        "Senders whose mail is never told: addresses, or whole domains such as '@example.org'.",
        (),
    )
    processed_labels: tuple[str, ...] = option(
        kinds.list_of(kinds.label), 'Labels that mean "processed", such as "Labels/Done".', ()
    )
    poll_interval_seconds: int = option(
        kinds.whole_number(20, 3600),
        "Seconds between two looks. Bridge asks Proton every 20 to 40 s; less gains nothing.",
        30,
    )
    idle: bool = option(kinds.flag, "Be told of new mail (IMAP IDLE) where Bridge offers it.", True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What leaves this machine."""

    send_body: bool = option(
        kinds.flag, "Send the text of a mail. Needs send_body_to_organization too.", False
    )
    send_body_to_organization: str | None = option(
        kinds.identifier,
        "Id of the one organization that texts may go to; with a key of any other, none is sent.",
        None,
    )
    body_max_characters: int = option(
        kinds.whole_number(1, 30_000), "Most characters of such a text.", 10_000
    )
    send_snippet: bool = option(kinds.flag, "Send the beginning of the text.", True)
    snippet_max_characters: int = option(
        kinds.whole_number(1, 2000), "Most characters of that beginning.", 200
    )
    send_headers: tuple[str, ...] = option(
        kinds.list_of(kinds.header_name),
        "Headers that are sent as they are. Without Subject the subject stays here too.",
        ("From", "To", "Subject", "Date", "Message-ID"),
    )
    attachment_mode: str = option(
        kinds.one_of("none", "metadata_only"),
        "Attachments: none, or their names, types and sizes (metadata_only).",
        "metadata_only",
    )
    hash_addresses: bool = option(
        kinds.flag, "Send keyed hashes in place of mail addresses.", False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Who mail may be sent as."""

    allowed_from_addresses: tuple[str, ...] = option(
        kinds.list_of(kinds.address), "Addresses that mail may be sent from. Empty: none is.", ()
    )
    max_recipients: int = option(
        kinds.whole_number(1, 100), "Most recipients of one mail; Proton takes up to 100.", 50
    )
    max_recipients_per_hour: int = option(
        kinds.whole_number(1, 10_000),
        "Most recipients written to in an hour, each mail's counted. Proton's free plan allows 50.",
        50,
    )
    max_message_bytes: int = option(
        kinds.whole_number(4_096, 26_214_400), "Largest mail that is sent, in bytes.", 1_048_576
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that protect Bridge and FleetPrompt."""

    max_messages_per_minute: int = option(
        kinds.whole_number(1, 10_000), "Most mails told in a minute.", 120
    )
    max_payload_size_bytes: int = option(
        kinds.whole_number(4_096, 65_536),
        "Largest signal that is sent, in bytes; FleetPrompt takes no larger than 65536.",
        65_536,
    )
    max_queue_bytes: int = option(
        kinds.whole_number(65_536, 10_737_418_240),
        "Most bytes of signals kept while FleetPrompt cannot be reached. Above it mail is left in the "
        "mailbox until there is room again.",
        67_108_864,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the connector tells of itself."""

    heartbeat_interval_seconds: int = option(
        kinds.whole_number(10, 3600), "Seconds between two heartbeats.", 60
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Where Bridge's password and FleetPrompt's key are kept."""

    store: str = option(
        kinds.one_of("auto", "keyring", "systemd", "file"),
        "The system's keyring, systemd credentials, or an encrypted file; auto takes the first of "
        "them that is safe and has what is asked for.",
        "auto",
    )
    key_file: str | None = option(
        kinds.text, "File with the key of the encrypted file, kept away from state_dir.", None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One mail account's connector."""

    connector_id: str = option(
        kinds.identifier, "This installation's name on the server; made by init, never changed."
    )
    device_id: str | None = option(
        kinds.identifier, "Id of this device, if it is to differ from connector_id.", None
    )
    state_dir: str | None = option(
        kinds.text,
        "Folder for the local database. Default: $STATE_DIRECTORY, else fleetprompt-edge and "
        "connector_id below the user's state folder.",
        None,
    )
    fleetprompt: FleetPrompt = field(metadata=table(FleetPrompt, "Where signals go."))
    bridge: Bridge = field(metadata=table(Bridge, "Proton Mail Bridge."))
    mailbox: Mailbox = field(metadata=table(Mailbox, "Which mail is looked at, and how often."))
    privacy: Privacy = field(metadata=table(Privacy, "What leaves this machine."))
    sending: Sending = field(metadata=table(Sending, "Who mail may be sent as."))
    limits: Limits = field(metadata=table(Limits, "Bounds that protect Bridge and FleetPrompt."))
    health: Health = field(metadata=table(Health, "What the connector tells of itself."))
    secrets: Secrets = field(metadata=table(Secrets, "Where password and key are kept."))


def read_option(key: str, value: Any) -> Any:
    """The value for one dotted key as a profile would hold it; ``ValueError`` if it is unfit."""
    return every_option()[key].metadata["read"](value)


def every_option(kind: type[Any] = Profile, prefix: str = "") -> dict[str, Field[Any]]:
    """Each option's dotted key with its dataclass field, in the order of the file."""
    found: dict[str, Field[Any]] = {}
    for one in fields(kind):
        key = prefix + one.name
        if "table" in one.metadata:
            found |= every_option(one.metadata["table"], f"{key}.")
        else:
            found[key] = one
    return found
