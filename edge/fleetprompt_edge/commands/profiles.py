"""``init``, ``config check`` and ``config show``: with the standard library alone."""

import argparse
from typing import Any

from fleetprompt_edge.reading import Problem, ProfileError, load, profile_path
from fleetprompt_edge.telling import tell

OK = 0
_INIT_OPTIONS = {
    "base_url": "fleetprompt.base_url",
    "organization_id": "fleetprompt.organization_id",
    "username": "bridge.username",
}


def init(asked: argparse.Namespace) -> int:
    """Write a new, commented profile that only its owner can read."""
    import uuid

    from fleetprompt_edge.new_file import write_private
    from fleetprompt_edge.profile import every_option, read_option
    from fleetprompt_edge.toml_text import new_profile

    path = profile_path(asked.profile)
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
    tell(asked, answer, f"Wrote {path}.\n{still} `fleetprompt-edge config check`.")
    return OK


def check(asked: argparse.Namespace) -> int:
    """Say everything that is wrong with the profile."""
    path = profile_path(asked.profile)
    load(path)
    tell(asked, {"ok": True, "profile": str(path), "problems": []}, f"{path}: in order")
    return OK


def show(asked: argparse.Namespace) -> int:
    """Print every option in effect, defaults included."""
    from fleetprompt_edge.reading import load
    from fleetprompt_edge.toml_text import effective, flat

    path = profile_path(asked.profile)
    profile, set_keys = load(path)
    values = flat(profile)
    answer = {
        "ok": True,
        "profile": str(path),
        "values": values,
        "defaults": [key for key in values if key not in set_keys],
    }
    tell(asked, answer, f"# {path}\n{effective(profile, set_keys)}".rstrip())
    return OK


def _is_required(one: Any) -> bool:
    from dataclasses import MISSING

    return one.default is MISSING
