"""Reading a profile from its file, with everything that is wrong said at once."""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from fleetprompt_edge.profile import Profile, every_option


class Problem(NamedTuple):
    """One thing to mend: the dotted key (empty for the file itself) and what is wrong."""

    key: str
    message: str


class ProfileError(Exception):
    """A profile that cannot be used; ``problems`` lists everything found, not only the first."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__(f"{path}: {len(problems)} to mend")
        self.path = path
        self.problems = problems


def default_path() -> Path:
    """``FLEETPROMPT_EDGE_PROFILE``, else ``profile.toml`` in the user's configuration folder."""
    named = os.environ.get("FLEETPROMPT_EDGE_PROFILE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "fleetprompt-edge" / "profile.toml"


def profile_path(named: str | None) -> Path:
    """The file that was named on the command line, else the usual one."""
    return Path(named).expanduser() if named else default_path()


def load(path: Path) -> tuple[Profile, frozenset[str]]:
    """The profile and the dotted keys that the file sets; ``ProfileError`` with all problems."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            given = tomllib.load(file)
    except FileNotFoundError:
        message = (
            "does not exist; `fleetprompt-edge pair CODE` makes it, or `fleetprompt-edge init`"
        )
        raise ProfileError(path, [Problem("", message)]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ProfileError(path, [Problem("", message)]) from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(path, [Problem("", f"is not TOML: {error}")]) from None
    except UnicodeDecodeError:
        raise ProfileError(path, [Problem("", "is not TOML: not UTF-8 text")]) from None
    except RecursionError:
        raise ProfileError(path, [Problem("", "is not TOML: nested too deeply")]) from None
    problems: list[Problem] = []
    if os.name == "posix" and mode & 0o022:
        problems.append(
            Problem("", f"can be changed by others (mode {mode & 0o777:04o}); `chmod 600 {path}`")
        )
    values = _read_table(Profile, given, "", problems)
    problems.extend(_contradictions(values))
    if problems:
        raise ProfileError(path, problems)
    return _built(Profile, values), frozenset(_set_keys(given, ""))


def _read_table(
    kind: type[Any], given: dict[str, Any], prefix: str, problems: list[Problem]
) -> dict[str, Any]:
    known = {one.name: one for one in fields(kind)}
    strange = [prefix + name for name in given if name not in known]
    problems.extend(Problem(key, _unknown(key)) for key in strange)
    values: dict[str, Any] = {}
    for name, one in known.items():
        key = prefix + name
        if "table" in one.metadata:
            inner = given.get(name, {})
            if isinstance(inner, dict):
                values[name] = _read_table(one.metadata["table"], inner, f"{key}.", problems)
            else:
                problems.append(Problem(key, f"must be a table, [{key}]"))
        elif name in given:
            try:
                values[name] = one.metadata["read"](given[name])
            except ValueError as error:
                problems.append(Problem(key, str(error)))
        elif one.default is MISSING:
            problems.append(Problem(key, f"is missing. {one.metadata['about']}"))
    return values


def _unknown(key: str) -> str:
    """What to say about a key that no profile has, with the nearest one that it may mean."""
    from difflib import get_close_matches

    name = key.rpartition(".")[2]
    if any(word in name.lower() for word in ("password", "secret", "api_key", "token")):
        return "is a secret, and secrets have no place in a profile; remove it"
    options = list(every_option())
    tables = list(dict.fromkeys(one.rpartition(".")[0] for one in options if "." in one))
    same_name = [one for one in options if one.rpartition(".")[2] == name]
    near = same_name or get_close_matches(key, options + tables, n=1, cutoff=0.6)
    if not near:
        by_name = {one.rpartition(".")[2]: one for one in options + tables}
        near = [by_name[one] for one in get_close_matches(name, by_name, n=1, cutoff=0.6)]
    return "is not an option" + (f"; do you mean {near[0]}?" if near else "")


def _contradictions(values: dict[str, Any]) -> Iterator[Problem]:
    mailbox = values.get("mailbox", {})
    watched = mailbox.get("folders", ())
    for name in mailbox.get("processed_labels", ()):
        if name in watched:
            message = "has a label that mailbox.folders watches; processed mail would come again"
            yield Problem("mailbox.processed_labels", message)
    privacy = values.get("privacy", {})
    if privacy.get("send_body") and not privacy.get("send_body_to_organization"):
        message = "is missing. Texts of mails are sent to the one organization that it names"
        yield Problem("privacy.send_body_to_organization", message)


def _set_keys(given: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _set_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _built(kind: type[Any], values: dict[str, Any]) -> Any:
    inner = {
        one.name: _built(one.metadata["table"], values[one.name])
        for one in fields(kind)
        if "table" in one.metadata
    }
    return kind(**values | inner)
