"""Profiles as TOML text: the commented file of ``init``, the effective values of ``config show``."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from textwrap import wrap
from typing import Any

from fleetprompt_edge.profile import Profile

Line = Callable[[str, Field[Any]], list[str]]

_HEAD = """\
# A FleetPrompt connector profile: one mail account.
# Lines that begin with # are not read. An option that is commented out has the value shown.
# No secret belongs in this file. Check it with: fleetprompt-edge config check
"""


def new_profile(given: Mapping[str, Any]) -> str:
    """The text of a new profile: the given values set, every other option shown in a comment."""

    def lines(key: str, one: Field[Any]) -> list[str]:
        about = [f"# {part}" for part in wrap(one.metadata["about"], width=88)]
        if key in given:
            return [*about, f"{one.name} = {_value(given[key])}"]
        if one.default is MISSING:
            return [*about, "# Required:", f'# {one.name} = "…"']
        shown = '"…"' if one.default is None else _value(one.default)
        return [*about, f"# {one.name} = {shown}"]

    return _HEAD + "\n" + "\n".join(_tables(Profile, "", lines, about=True)) + "\n"


def effective(profile: Profile, set_keys: frozenset[str]) -> str:
    """Every value in effect, with ``# default`` behind those that the file does not set."""
    values = flat(profile)

    def lines(key: str, one: Field[Any]) -> list[str]:
        if values[key] is None:
            return [f"# {one.name} is not set"]
        behind = "" if key in set_keys else "  # default"
        return [f"{one.name} = {_value(values[key])}{behind}"]

    return "\n".join(_tables(Profile, "", lines, about=False)) + "\n"


def flat(profile: Any, prefix: str = "") -> dict[str, Any]:
    """Each option's dotted key with its value."""
    found: dict[str, Any] = {}
    for one in fields(profile):
        value = getattr(profile, one.name)
        if "table" in one.metadata:
            found |= flat(value, f"{prefix}{one.name}.")
        else:
            found[prefix + one.name] = value
    return found


def _tables(kind: type[Any], prefix: str, line: Line, *, about: bool) -> Iterator[str]:
    """The options of a table, then the tables inside it: TOML allows no other order."""
    for one in fields(kind):
        if "table" not in one.metadata:
            yield from line(prefix + one.name, one)
    for one in fields(kind):
        if "table" in one.metadata:
            key = prefix + one.name
            yield ""
            if about:
                yield f"# {one.metadata['about']}"
            yield f"[{key}]"
            yield from _tables(one.metadata["table"], f"{key}.", line, about=about)


def _value(value: Any) -> str:
    """A TOML value. JSON's strings, numbers and arrays of them are TOML's too (TOML 1.0)."""
    # TOML wants DEL escaped, JSON does not; no option holds control characters.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
