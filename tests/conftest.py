"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test depends on timing: the machines that run them are shared.
settings.register_profile("saccade", deadline=None)
settings.load_profile("saccade")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real slides and rasters; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SACCADE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set SACCADE_TEST_DATA")
    return folder
