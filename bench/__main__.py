"""``python -m bench``: measure, print ratios, and say which targets are not met."""

import argparse
import json

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

_CHOICES = (
    *("ingest", "timeline", "retention", "directives", "widget"),
    *("webchat", "windows", "digests", "dagster", "lake"),
    *(f"directives.{part}" for part in directives.PARTS),
    *("edge", *(f"edge.{part}" for part in edge.PARTS)),
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
    measured: list[Ratio | Bound] = []
    if arguments.only in (None, "ingest"):
        ratios = ingest.measure(console, arguments.seconds)
        show(console, ratios)
        measured += ratios
    if arguments.only in (None, "timeline"):
        bounds = timeline.measure(console)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.only in (None, "retention"):
        bounds = retention.measure(console, arguments.seconds)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.only is None or arguments.only.startswith("directives"):
        _, _, part = (arguments.only or "").partition(".")
        found = directives.measure(console, (part,) if part else directives.PARTS)
        show(console, found.ratios)
        show_bounds(console, found.bounds)
        measured += [*found.ratios, *found.bounds]
    if arguments.only in (None, "digests"):
        bounds = digests.measure(console)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.only in (None, "dagster"):
        bounds = dagster_grid.measure(console)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.only in (None, "webchat"):
        bounds = webchat.measure(console, arguments.seconds)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.only is None or arguments.only.startswith("edge"):
        _, _, part = (arguments.only or "").partition(".")
        shown = edge.measure(console, (part,) if part else edge.PARTS)
        show(console, shown.ratios)
        show_bounds(console, shown.bounds)
        measured += [*shown.ratios, *shown.bounds]
    if arguments.only in (None, "widget"):
        weighed = widget.measure(console)
        show(console, weighed.ratios)
        show_bounds(console, weighed.bounds)
        measured += [*weighed.ratios, *weighed.bounds]
    # Ten million rows take minutes to write: only where it is asked for.
    if arguments.only == "lake":
        ratios = lake.measure(console)
        show(console, ratios)
        measured += ratios
    # Minutes long and the same on every machine: only where it is asked for.
    if arguments.only == "windows":
        bounds = windows.measure(console)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.json:
        print(json.dumps([one.as_json() for one in measured]))


if __name__ == "__main__":
    main()
