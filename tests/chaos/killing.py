"""What programs that kill workers at random have in common: what they count, and their command line."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class KillCount:
    """How often was killed, and what was wrong at the end."""

    kills: int = 0
    differences: list[str] = field(default_factory=list)


Run = Callable[..., Coroutine[Any, Any, Mapping[str, KillCount]]]
"""Takes ``kills``, and by name ``every``, ``seed`` and ``progress``; gives an outcome for each way."""


def main(program: str, description: str | None, run: Run) -> None:
    """Read the arguments, run, print what was found as JSON; exit code 1 for any difference."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--kills", type=int, default=1000, help="kills in all, at least")
    parser.add_argument("--every", type=int, default=1, help="of the suspensions, each n-th")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()
    told = 0

    def progress(outcomes: Sequence[KillCount]) -> None:
        nonlocal told
        done = sum(one.kills for one in outcomes)
        if done >= told + 25:
            told = done
            wrong = sum(len(one.differences) for one in outcomes)
            seconds = time.monotonic() - begun
            print(
                f"{done} of {arguments.kills} kills, {wrong} differences, {seconds:.0f} s",
                file=sys.stderr,
            )

    found = asyncio.run(
        run(arguments.kills, every=arguments.every, seed=arguments.seed, progress=progress)
    )
    summary = {way: asdict(outcome) for way, outcome in found.items()}
    print(json.dumps(summary | {"seconds": round(time.monotonic() - begun)}, indent=1))
    sys.exit(1 if any(outcome.differences for outcome in found.values()) else 0)
