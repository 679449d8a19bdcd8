"""Pictures, networks and models for the tests of this room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from wsltool.errors import BadImageError


@dataclass(frozen=True)
class Squares:
    """Pictures of noise with a square; its colour is the class, red or green."""

    bad_rows: tuple[int, ...] = ()
    size_px: tuple[int, int] = (40, 56)

    def __call__(self, row: int) -> NDArray[np.uint8]:
        if row in self.bad_rows:
            raise BadImageError(f"JPEG is truncated at byte {row}.")
        random = np.random.default_rng(row)
        picture_HWC = random.integers(60, 200, (*self.size_px, 3)).astype(np.uint8)
        top, left = random.integers(0, 20), random.integers(0, 36)
        picture_HWC[top : top + 20, left : left + 20] = [20, 20, 20]
        picture_HWC[top : top + 20, left : left + 20, row % 2] = 250
        return picture_HWC


@dataclass(frozen=True)
class Files:
    """Pictures in files."""

    path: tuple[Path, ...]

    def __call__(self, row: int) -> NDArray[np.uint8]:
        with Image.open(self.path[row]) as image:
            return np.asarray(image.convert("RGB"))


@pytest.fixture
def one_thread() -> object:
    """Compute on one thread, so that bytes can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty torch.hub folder, and a proxy at which nothing listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"
