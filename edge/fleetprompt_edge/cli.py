"""The ``fleetprompt-edge`` command.

Exit codes: 0 all is well; 1 it works and something is not well; 2 there is something to mend, in the
profile or in the command line; 3 the local database cannot be used; 4 another connector runs with
this profile. What it is was said. With ``--json`` the answer is one JSON object on standard output.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from fleetprompt_edge import __version__
from fleetprompt_edge.arguments import parser
from fleetprompt_edge.telling import tell

# The rest is imported where it is needed: `--version` and `--help` answer at once.
if TYPE_CHECKING:
    from fleetprompt_edge.reading import ProfileError

OK = 0
TO_MEND = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    line = parser()
    asked = line.parse_args(arguments)
    if asked.version:
        tell(asked, {"version": __version__}, f"fleetprompt-edge {__version__}")
        return OK
    if asked.run is None:
        line.error("a command is needed; see --help")
    from fleetprompt_edge.reading import ProfileError

    module, _, name = asked.run.partition(":")
    command = import_module(f"fleetprompt_edge.commands.{module}")
    run: Callable[[argparse.Namespace], int] = getattr(command, name)
    try:
        return run(asked)
    except ProfileError as error:
        return _tell_problems(asked, error)


def _tell_problems(asked: argparse.Namespace, error: "ProfileError") -> int:
    listed = [problem._asdict() for problem in error.problems]
    answer = {"ok": False, "profile": str(error.path), "problems": listed}
    lines = [
        f"{error.path}: {problem.key} {problem.message}"
        if problem.key
        else f"{error.path} {problem.message}"
        for problem in error.problems
    ]
    tell(asked, answer, "\n".join(lines), file=sys.stderr)
    return TO_MEND
