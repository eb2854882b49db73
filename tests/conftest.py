"""Shared fixtures: where the real files lie, and one thread for small tensors."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real MedMNIST3D files, from $VIVIT_EDU_TEST_DATA; tests that need it skip without."""
    folder = os.environ.get("VIVIT_EDU_TEST_DATA")
    if not folder:
        pytest.skip("needs real MedMNIST3D files: set VIVIT_EDU_TEST_DATA to the folder that holds them")
    return Path(folder).expanduser().resolve()
