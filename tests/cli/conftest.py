"""Small data for the tests of the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NUM_IMAGES = 300


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures in a folder a class, their boxes, and two stores of them, one file each."""
    import wsltool

    folder = tmp_path_factory.mktemp("pictures")
    rng, rows = np.random.default_rng(2), ["image,x0,y0,x1,y1"]
    for n in range(NUM_IMAGES):
        name = f"{'abc'[n % 3]}/{n:03d}.png"
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        picture_HWC = rng.integers(0, 256, (12, 10 + n % 5, 3)).astype(np.uint8)
        Image.fromarray(picture_HWC).save(folder / "in" / name)
        rows.append(f"{name},2,3,8,9")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    source = wsltool.ingest_folder(
        folder / "in", boxes=folder / "boxes.csv", output=folder / "in.h5", embed=True
    )
    wsltool.baseline(source, prior="random", grid=4, output=folder / "maps.h5")
    return folder


@pytest.fixture
def folder(tmp_path: Path, pictures: Path) -> Path:
    """A folder of one's own with ``in.h5`` (images) and ``maps.h5``."""
    for name in ("in.h5", "maps.h5"):
        shutil.copyfile(pictures / name, tmp_path / name)
    return tmp_path
