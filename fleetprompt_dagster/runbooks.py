"""What to do: one page for each check, job and alert, linked from each."""

import dagster as dg

from fleetprompt.settings import get_settings

FOLDER = "docs/operator/runbooks"
# What has no page of its own.
RUNS = "failed_runs"


def runbook_address(page: str) -> str:
    """The page as it is published, or its path in the source tree."""
    base = get_settings().runbooks_url
    return f"{base.rstrip('/')}/{page}.md" if base else f"{FOLDER}/{page}.md"


def runbook(page: str) -> dict[str, dg.MetadataValue]:
    """The page as metadata, under ``runbook``."""
    address = runbook_address(page)
    value = dg.MetadataValue.url(address) if "://" in address else dg.MetadataValue.path(address)
    return {"runbook": value}
