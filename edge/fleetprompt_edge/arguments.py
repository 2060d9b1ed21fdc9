"""The command line: every command, its options, and the function that does it.

A function is named, not imported (``module:function`` below ``commands``), so that `--version` and
`--help` answer at once.
"""

import argparse
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Everything that can be asked; ``run`` names what does it."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON"
    )
    with_profile = argparse.ArgumentParser(add_help=False, parents=[shared])
    with_profile.add_argument(
        "--profile",
        metavar="PATH",
        help="the profile; default: $FLEETPROMPT_EDGE_PROFILE, else profile.toml in the folder "
        "fleetprompt-edge of the user's configuration",
    )
    made = argparse.ArgumentParser(
        prog="fleetprompt-edge",
        description="FleetPrompt's connector for Proton Mail Bridge: tells FleetPrompt of new mail.",
        epilog="Exit codes: 0 all is well, 1 something is not well, 2 something is to be mended, 3 the "
        "local database cannot be used, 4 another connector runs with this profile.",
        parents=[shared],
        allow_abbrev=False,
    )
    made.set_defaults(run=None)
    made.add_argument("--version", action="store_true", help="print the version")
    commands = made.add_subparsers(metavar="COMMAND")

    init = commands.add_parser(
        "init",
        parents=[with_profile],
        help="write a new, commented profile that only its owner can read",
        allow_abbrev=False,
    )
    init.add_argument("--base-url", metavar="URL", help="address of the FleetPrompt server")
    init.add_argument("--organization-id", metavar="UUID", help="id of the organization")
    init.add_argument("--username", metavar="NAME", help="user name shown in Bridge's settings")
    init.set_defaults(run="profiles:init")

    config = commands.add_parser("config", help="check or show a profile", allow_abbrev=False)
    actions = config.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        parents=[with_profile],
        help="say everything that is wrong with the profile",
        epilog="Exit codes: 0 the profile can be used, 2 it cannot.",
        allow_abbrev=False,
    )
    check.set_defaults(run="profiles:check")
    show = actions.add_parser(
        "show",
        parents=[with_profile],
        help="print every option in effect, defaults included",
        allow_abbrev=False,
    )
    show.set_defaults(run="profiles:show")
    _add_working(commands, with_profile)
    _add_service(commands, with_profile)
    _add_looking(commands, with_profile)
    _add_queue(commands, with_profile)
    _add_secrets(commands, with_profile, shared)
    return made


def _add_working(commands: Any, with_profile: argparse.ArgumentParser) -> None:
    pair = _command(
        commands,
        "pair",
        with_profile,
        "pair:pair",
        "make profile and key of a code from FleetPrompt",
    )
    pair.add_argument("code", metavar="CODE", help="as FleetPrompt shows it")
    pair.add_argument("--url", metavar="URL", help="address of the FleetPrompt server")
    pair.add_argument("--username", metavar="NAME", help="user name shown in Bridge's settings")
    pair.add_argument(
        "--fingerprint", metavar="SHA256", help="Bridge's certificate, if you know it"
    )
    pair.add_argument(
        "--imap-port", metavar="PORT", type=int, help="default: the one that is found"
    )
    pair.add_argument(
        "--smtp-port", metavar="PORT", type=int, help="default: the one that is found"
    )
    pair.add_argument("--key-file", metavar="PATH", help="keep secrets in a file, with this key")
    run = _command(commands, "run", with_profile, "working:run", "work until told to stop")
    run.add_argument("--debug", action="store_true", help="log more of what is done; never mail")
    status = _command(
        commands, "status", with_profile, "working:status", "say how the connector is"
    )
    status.add_argument(
        "--page", action="store_true", help="show it in a browser on this machine, until Ctrl-C"
    )
    status.add_argument(
        "--minutes", metavar="N", type=_minutes, default=30, help="of the page; default: 30"
    )
    debug = _command(
        commands, "debug", with_profile, "working:debug", "let a running connector log more, or not"
    )
    debug.add_argument("switch", choices=("on", "off"))
    debug.add_argument(
        "--minutes", metavar="N", type=_minutes, default=30, help="how long; default: 30"
    )


def _add_service(commands: Any, with_profile: argparse.ArgumentParser) -> None:
    service = commands.add_parser(
        "service", help="let systemd start it with the machine", allow_abbrev=False
    )
    actions = service.add_subparsers(metavar="ACTION", required=True)
    for name, about in (
        ("install", "write the unit and start it"),
        ("uninstall", "stop it and remove the unit; all else stays"),
        ("status", "say how systemd sees it"),
    ):
        action = _command(actions, name, with_profile, f"service:{name}", about)
        action.add_argument(
            "--name", metavar="NAME", default="fleetprompt-edge", help="default: fleetprompt-edge"
        )
        whose = action.add_mutually_exclusive_group()
        whose.add_argument("--user", action="store_true", help="a service of this user's session")
        whose.add_argument(
            "--system", action="store_true", help="a service of the machine; root's default"
        )
        if name == "install":
            action.add_argument(
                "--run-as", metavar="USER", help="of a system service; default: the profile's owner"
            )
            action.add_argument(
                "--print", action="store_true", help="show the unit and change nothing"
            )


def _add_looking(commands: Any, with_profile: argparse.ArgumentParser) -> None:
    from_shared = "a day or a time, such as 2026-01-31"
    _command(
        commands, "doctor", with_profile, "doctor:doctor", "check everything and say how to mend it"
    )
    bundle = _command(
        commands,
        "support-bundle",
        with_profile,
        "support:bundle",
        "pack what support needs, without secrets, addresses and mail",
    )
    bundle.add_argument(
        "--output", metavar="PATH", help="the file to write; default: a new one in this folder"
    )
    audit = _command(
        commands,
        "audit",
        with_profile,
        "looking:audit",
        "compare the mailbox with what was told: is any mail missing?",
    )
    audit.add_argument("--since", metavar="TIME", type=_since, required=True, help=from_shared)
    backfill = _command(
        commands,
        "backfill",
        with_profile,
        "queue:backfill",
        "tell of mail that was there before the connector",
    )
    backfill.add_argument("--since", metavar="TIME", type=_since, required=True, help=from_shared)
    backfill.add_argument("--folder", metavar="NAME", help="only this folder")
    explain = _command(
        commands,
        "explain-payload",
        with_profile,
        "looking:explain",
        "show the very signal that would be sent of one mail",
    )
    explain.add_argument("uid", metavar="UID", type=int, help="the mail's UID")
    explain.add_argument("--folder", metavar="NAME", default="INBOX", help="default: INBOX")


def _add_queue(commands: Any, with_profile: argparse.ArgumentParser) -> None:
    queue = commands.add_parser(
        "queue", help="see signals that wait or were refused", allow_abbrev=False
    )
    actions = queue.add_subparsers(metavar="ACTION", required=True)
    _command(actions, "list", with_profile, "queue:show", "what waits and what was refused")
    for name, about in (
        ("retry", "send refused signals again"),
        ("drop", "forget refused signals"),
    ):
        action = _command(actions, name, with_profile, f"queue:{name}", about)
        chosen = action.add_mutually_exclusive_group(required=True)
        chosen.add_argument("seq", metavar="NUMBER", type=int, nargs="?", help="as `list` shows it")
        chosen.add_argument("--all", action="store_true", help="all of them")


def _add_secrets(
    commands: Any, with_profile: argparse.ArgumentParser, shared: argparse.ArgumentParser
) -> None:
    secrets = commands.add_parser(
        "secrets", help="store Bridge's password and FleetPrompt's key", allow_abbrev=False
    )
    actions = secrets.add_subparsers(metavar="ACTION", required=True)
    _command(actions, "list", with_profile, "secrets:show", "which are there, and where")
    for name, function, about in (
        ("set", "put", "store one, typed or from standard input"),
        ("remove", "remove", "forget one"),
    ):
        action = _command(actions, name, with_profile, f"secrets:{function}", about)
        action.add_argument("name", choices=("bridge-password", "api-key"))
    new_key = _command(
        actions, "new-key", shared, "secrets:new_key", "make a key for the encrypted file"
    )
    new_key.add_argument("path", metavar="PATH", help="a new file, away from the state folder")


def _command(
    commands: Any, name: str, parent: argparse.ArgumentParser, run: str, about: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, parents=[parent], help=about, allow_abbrev=False
    )
    made.set_defaults(run=run)
    return made


def _minutes(text: str) -> int:
    """From one minute to a day."""
    if not text.isdecimal() or not 1 <= int(text) <= 1440:
        raise argparse.ArgumentTypeError("must be a number of minutes from 1 to 1440")
    return int(text)


def _since(text: str) -> int:
    """A day or a time, in UTC unless it says otherwise, as epoch seconds."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a day or a time, such as 2026-01-31") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
