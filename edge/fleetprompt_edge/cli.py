"""The ``fleetprompt-edge`` command.

Exit codes: 0 all is well; 1 it works and something is not well; 2 there is something to mend, in the
profile or in the command line; 3 the local database cannot be used; 4 another connector runs with
this profile. What it is was said. With ``--json`` the answer is one JSON object on standard output.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fleetprompt_edge import __version__

# The rest is imported where it is needed: `--version` and `--help` answer at once.
if TYPE_CHECKING:
    from fleetprompt_edge.reading import ProfileError

OK = 0
TO_MEND = 2

_INIT_OPTIONS = {
    "base_url": "fleetprompt.base_url",
    "organization_id": "fleetprompt.organization_id",
    "username": "bridge.username",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.version:
        _tell(asked, {"version": __version__}, f"fleetprompt-edge {__version__}")
        return OK
    if asked.run is None:
        parser.error("a command is needed; see --help")
    from fleetprompt_edge.reading import ProfileError

    run: Callable[[argparse.Namespace], int]
    if callable(asked.run):
        run = asked.run
    else:
        module, _, name = asked.run.partition(":")
        run = getattr(import_module(f"fleetprompt_edge.commands.{module}"), name)
    try:
        return run(asked)
    except ProfileError as error:
        return _tell_problems(asked, error)


def _parser() -> argparse.ArgumentParser:
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
    parser = argparse.ArgumentParser(
        prog="fleetprompt-edge",
        description="FleetPrompt's connector for Proton Mail Bridge: tells FleetPrompt of new mail.",
        epilog="Exit codes: 0 all is well, 1 something is not well, 2 something is to be mended, 3 the "
        "local database cannot be used, 4 another connector runs with this profile.",
        parents=[shared],
        allow_abbrev=False,
    )
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")

    init = commands.add_parser(
        "init",
        parents=[with_profile],
        help="write a new, commented profile that only its owner can read",
        allow_abbrev=False,
    )
    init.add_argument("--base-url", metavar="URL", help="address of the FleetPrompt server")
    init.add_argument("--organization-id", metavar="UUID", help="id of the organization")
    init.add_argument("--username", metavar="NAME", help="user name shown in Bridge's settings")
    init.set_defaults(run=_init)

    config = commands.add_parser("config", help="check or show a profile", allow_abbrev=False)
    actions = config.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        parents=[with_profile],
        help="say everything that is wrong with the profile",
        epilog="Exit codes: 0 the profile can be used, 2 it cannot.",
        allow_abbrev=False,
    )
    check.set_defaults(run=_check)
    show = actions.add_parser(
        "show",
        parents=[with_profile],
        help="print every option in effect, defaults included",
        allow_abbrev=False,
    )
    show.set_defaults(run=_show)
    _add_working(commands, with_profile)
    _add_looking(commands, with_profile)
    _add_queue(commands, with_profile)
    _add_secrets(commands, with_profile, shared)
    return parser


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
    _command(commands, "status", with_profile, "working:status", "say how the connector is")


def _add_looking(commands: Any, with_profile: argparse.ArgumentParser) -> None:
    from_shared = "a day or a time, such as 2026-01-31"
    _command(
        commands, "doctor", with_profile, "doctor:doctor", "check everything and say how to mend it"
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


def _since(text: str) -> int:
    """A day or a time, in UTC unless it says otherwise, as epoch seconds."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a day or a time, such as 2026-01-31") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _init(asked: argparse.Namespace) -> int:
    import uuid

    from fleetprompt_edge.new_file import write_private
    from fleetprompt_edge.profile import every_option, read_option
    from fleetprompt_edge.reading import Problem, ProfileError
    from fleetprompt_edge.toml_text import new_profile

    path = _path(asked)
    given: dict[str, Any] = {"connector_id": str(uuid.uuid4())}
    problems = []
    for argument, key in _INIT_OPTIONS.items():
        value = getattr(asked, argument)
        if value is None:
            continue
        try:
            given[key] = read_option(key, value)
        except ValueError as error:
            problems.append(Problem("--" + argument.replace("_", "-"), str(error)))
    if problems:
        raise ProfileError(path, problems)
    try:
        write_private(path, new_profile(given))
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        if isinstance(error, FileExistsError) and path.exists():
            message = "exists already and was not changed"
        raise ProfileError(path, [Problem("", message)]) from error
    missing = [key for key, one in every_option().items() if _is_required(one) and key not in given]
    answer = {
        "ok": True,
        "profile": str(path),
        "connector_id": given["connector_id"],
        "missing": missing,
    }
    still = f"Fill in {', '.join(missing)}, then run" if missing else "Now run"
    _tell(asked, answer, f"Wrote {path}.\n{still} `fleetprompt-edge config check`.")
    return OK


def _check(asked: argparse.Namespace) -> int:
    from fleetprompt_edge.reading import load

    path = _path(asked)
    load(path)
    _tell(asked, {"ok": True, "profile": str(path), "problems": []}, f"{path}: in order")
    return OK


def _show(asked: argparse.Namespace) -> int:
    from fleetprompt_edge.reading import load
    from fleetprompt_edge.toml_text import effective, flat

    path = _path(asked)
    profile, set_keys = load(path)
    values = flat(profile)
    answer = {
        "ok": True,
        "profile": str(path),
        "values": values,
        "defaults": [key for key in values if key not in set_keys],
    }
    _tell(asked, answer, f"# {path}\n{effective(profile, set_keys)}".rstrip())
    return OK


def _path(asked: argparse.Namespace) -> Any:
    from pathlib import Path

    from fleetprompt_edge.reading import default_path

    return Path(asked.profile).expanduser() if asked.profile else default_path()


def _is_required(one: Any) -> bool:
    from dataclasses import MISSING

    return one.default is MISSING


def _tell_problems(asked: argparse.Namespace, error: "ProfileError") -> int:
    listed = [problem._asdict() for problem in error.problems]
    answer = {"ok": False, "profile": str(error.path), "problems": listed}
    lines = [
        f"{error.path}: {problem.key} {problem.message}"
        if problem.key
        else f"{error.path} {problem.message}"
        for problem in error.problems
    ]
    _tell(asked, answer, "\n".join(lines), file=sys.stderr)
    return TO_MEND


def _tell(asked: argparse.Namespace, answer: Any, words: str, *, file: Any = None) -> None:
    if getattr(asked, "json", False):
        import json

        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        (file or sys.stdout).write(words + "\n")
