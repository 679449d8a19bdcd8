"""Fixtures of the runner's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .fake_stage import contents, fake, write_images


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The input of the fake stage."""
    return write_images(tmp_path / "in.zarr")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one uninterrupted run of the fake stage makes."""
    return contents(fake(write_images(tmp_path_factory.mktemp("whole") / "in.zarr")))
