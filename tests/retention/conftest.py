"""Signals put straight into a tenant's table, and the platform's settings with a lake of the test's own."""

from pathlib import Path

import pytest

from fleetprompt.retention.pace import Pace
from fleetprompt.settings import Settings
from tests.lake.conftest import Insert, insert, lake

__all__ = ["Insert", "insert", "lake"]


@pytest.fixture
def kept(settings: Settings, lake: Path) -> Settings:
    """The platform's settings: thirty days of signals, ninety of all else."""
    return settings.model_copy(update={"lake_dir": lake})


@pytest.fixture
def pace() -> Pace:
    """Small batches without a rest."""
    return Pace(rows=3, rest=0.0)
