"""Bringing queued signals to FleetPrompt, each at least once and none in vain."""

import sys

# httpx loads its command line too, with click, rich and pygments, where these happen to be installed: 6 MB.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: not to be imported
