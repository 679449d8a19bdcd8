"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real pictures, annotations and weights; skips where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("WSLTOOL_DATA", default))
    if not (folder / "VOCdevkit").is_dir():
        pytest.skip(f"no real data in {folder}; set WSLTOOL_DATA to the folder that holds it")
    return folder
