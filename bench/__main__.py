"""``python -m bench``: measure, print ratios, and say which targets are not met."""

import argparse
import json

from rich.console import Console

from bench import ingest
from bench.report import show


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--json", action="store_true", help="the ratios as one JSON document")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, soft_wrap=True)
    ratios = ingest.measure(console, arguments.seconds)
    show(console, ratios)
    if arguments.json:
        print(json.dumps([ratio.as_json() for ratio in ratios]))


if __name__ == "__main__":
    main()
