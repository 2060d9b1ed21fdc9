"""The accessibility checker for the pages that a browser opens."""

import pytest

from tests.widget.checkout import axe_source


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its source."""
    return axe_source(tmp_path_factory.mktemp("widget"))
