"""Where the lake is: a folder of this machine, or a folder in object storage."""

from pathlib import Path

from fleetprompt.lake.objects import ObjectPath

# The lake, a folder in it or a file of it.
LakePath = Path | ObjectPath


def place_of(lake: LakePath | str) -> LakePath:
    """A folder, absolute, or ``<protocol>://…``; InvalidError for an address that is not a lake's."""
    if isinstance(lake, ObjectPath):
        return lake
    if "://" in str(lake):
        return ObjectPath.parse(str(lake))
    return Path(lake).absolute()
