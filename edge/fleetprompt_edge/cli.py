"""The ``fleetprompt-edge`` command.

Exit codes: 0 all is well; 2 there is something to mend, in the profile or in the command line,
and what it is was said. With ``--json`` the answer is one JSON object on standard output.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
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

    run: Callable[[argparse.Namespace], int] = asked.run
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
        description="FleetPrompt's connector for Proton Mail Bridge: prepares and checks the "
        "profile of a mail account.",
        epilog="Exit codes: 0 all is well, 2 something is to be mended.",
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
    return parser


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
