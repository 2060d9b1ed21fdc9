"""When to tell operators, and when to keep still: an episode begins with a failure and ends with a success.

Told are its beginning, its end if its beginning was told, and in between once in six hours how often it
has failed since. What fails every minute is one message, not sixty.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

AGAIN_AFTER_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Episode:
    """Something that fails: how often it has, and when it was told last, in seconds since the epoch."""

    began: float
    failures: int
    told_at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One failure or success of a subject, such as ``job:keep_house``."""

    subject: str
    ok: bool
    at: float
    detail: str
    runbook: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What to tell. The key follows from the episode, so that telling it twice is telling it once."""

    key: str
    subject: str
    text: str


def follow(
    episodes: Mapping[str, Episode], seen: list[Seen], now: float
) -> tuple[dict[str, Episode], list[Alert]]:
    """The episodes after what was seen, oldest first, and what of it is told."""
    open_: dict[str, Episode] = dict(episodes)
    alerts: dict[str, Alert] = {}
    for one in seen:
        before = open_.get(one.subject)
        if one.ok:
            if before is not None:
                del open_[one.subject]
                key = f"{one.subject}:{before.began:.0f}:over"
                text = f":white_check_mark: **{one.subject}** is well again after {before.failures} failures."
                # What began and ended between two looks was never told, and need not be.
                began_now = alerts.pop(one.subject, None)
                if began_now is None or before.told_at != now:
                    alerts[one.subject] = Alert(key, one.subject, text)
            continue
        failures = 1 if before is None else before.failures + 1
        began = one.at if before is None else before.began
        due = before is None or now - before.told_at >= AGAIN_AFTER_SECONDS
        told_at = now if due or before is None else before.told_at
        open_[one.subject] = Episode(began, failures, told_at)
        if told_at == now:
            times = "" if failures == 1 else f" It has failed {failures} times."
            alerts[one.subject] = Alert(
                f"{one.subject}:{began:.0f}:{(one.at - began) // AGAIN_AFTER_SECONDS:.0f}",
                one.subject,
                f":warning: **{one.subject}** fails.{times}\n{one.detail}\nWhat to do: {one.runbook}",
            )
    return open_, list(alerts.values())


def read_episodes(stored: object) -> dict[str, Episode]:
    """From the sensor's cursor."""
    found: dict[str, list[float]] = json.loads(json.dumps(stored or {}))
    return {name: Episode(one[0], int(one[1]), one[2]) for name, one in found.items()}


def write_episodes(episodes: Mapping[str, Episode]) -> dict[str, list[float]]:
    """For the sensor's cursor."""
    return {name: [one.began, one.failures, one.told_at] for name, one in episodes.items()}
