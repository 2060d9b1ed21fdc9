"""``python -m bench``: measure, print ratios, and say which targets are not met."""

import argparse
import json

from rich.console import Console

from bench import directives, ingest, timeline, windows
from bench.report import Bound, Ratio, show, show_bounds

_CHOICES = (
    *("ingest", "timeline", "directives", "windows"),
    *(f"directives.{part}" for part in directives.PARTS),
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
    if arguments.only is None or arguments.only.startswith("directives"):
        _, _, part = (arguments.only or "").partition(".")
        found = directives.measure(console, (part,) if part else directives.PARTS)
        show(console, found.ratios)
        show_bounds(console, found.bounds)
        measured += [*found.ratios, *found.bounds]
    # Minutes long and the same on every machine: only where it is asked for.
    if arguments.only == "windows":
        bounds = windows.measure(console)
        show_bounds(console, bounds)
        measured += bounds
    if arguments.json:
        print(json.dumps([one.as_json() for one in measured]))


if __name__ == "__main__":
    main()
