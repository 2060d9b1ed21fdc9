"""``python -m bench``: measure, print ratios, and say which targets are not met."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from bench import (
    dagster_grid,
    digests,
    directives,
    edge,
    ingest,
    lake,
    retention,
    timeline,
    webchat,
    widget,
    windows,
)
from bench.report import Bound, Ratio, show, show_bounds

Figures = Sequence[Ratio | Bound]


@dataclass(frozen=True)
class Asked:
    """What a benchmark is told: where to print, seconds of each measurement, and one of its parts or ""."""

    console: Console
    seconds: float
    part: str


def _of_directives(asked: Asked) -> Figures:
    found = directives.measure(asked.console, (asked.part,) if asked.part else directives.PARTS)
    return [*found.ratios, *found.bounds]


def _of_edge(asked: Asked) -> Figures:
    found = edge.measure(asked.console, (asked.part,) if asked.part else edge.PARTS)
    return [*found.ratios, *found.bounds]


def _of_widget(asked: Asked) -> Figures:
    found = widget.measure(asked.console)
    return [*found.ratios, *found.bounds]


_ALWAYS: dict[str, Callable[[Asked], Figures]] = {
    "ingest": lambda asked: ingest.measure(asked.console, asked.seconds),
    "timeline": lambda asked: timeline.measure(asked.console),
    "retention": lambda asked: retention.measure(asked.console, asked.seconds),
    "directives": _of_directives,
    "digests": lambda asked: digests.measure(asked.console),
    "dagster": lambda asked: dagster_grid.measure(asked.console),
    "webchat": lambda asked: webchat.measure(asked.console, asked.seconds),
    "edge": _of_edge,
    "widget": _of_widget,
}
# Only where they are asked for: ten million rows take minutes to write, and all zones take minutes and
# come out the same on every machine.
_ASKED_FOR: dict[str, Callable[[Asked], Figures]] = {
    "lake": lambda asked: lake.measure(asked.console),
    "windows": lambda asked: windows.measure(asked.console),
}
_CHOICES = (
    *(_ALWAYS | _ASKED_FOR),
    *(f"directives.{part}" for part in directives.PARTS),
    *(f"edge.{part}" for part in edge.PARTS),
)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--json", action="store_true", help="the ratios as one JSON document")
    parser.add_argument(
        "--only", choices=_CHOICES, metavar="PART", help=f"one of: {', '.join(_CHOICES)}"
    )
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, soft_wrap=True)
    name, _, part = (arguments.only or "").partition(".")
    chosen = {name: (_ALWAYS | _ASKED_FOR)[name]} if name else _ALWAYS
    measured: list[Ratio | Bound] = []
    for measure in chosen.values():
        figures = measure(Asked(console, arguments.seconds, part))
        show(console, [one for one in figures if isinstance(one, Ratio)])
        show_bounds(console, [one for one in figures if isinstance(one, Bound)])
        measured += figures
    if arguments.json:
        print(json.dumps([one.as_json() for one in measured]))


if __name__ == "__main__":
    main()
