"""Fixtures of the tests of the runner and of ``cam``."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Equal bytes are promised for equal threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of coloured cells, a class folder a colour."""
    from .colours import colour_folder

    return colour_folder(tmp_path)


@pytest.fixture
def images(folder: Path) -> Path:
    """The store of these pictures."""
    from .colours import colour_images

    return colour_images(folder)


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """The store of these pictures and of a truncated one, in row 2."""
    from wsltool.stages.ingest import ingest_folder

    from .making import put_picture

    path = put_picture(folder / "red/t.jpg", (64, 64))
    path.write_bytes(path.read_bytes()[:-40])
    return ingest_folder(folder, classes=tmp_path / "classes.txt", output=tmp_path / "b.zarr")
