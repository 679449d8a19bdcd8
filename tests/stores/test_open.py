"""Opening what is no finished store of ours: one clear line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from wsltool.errors import (
    StoreCorruptError,
    StoreExistsError,
    StoreKindError,
    StoreMissingError,
    StoreUnfinishedError,
    UsageError,
)
from wsltool.stores.open import open_store
from wsltool.stores.wip import WorkInProgress

from .examples import example_arrays, write_store

both = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


def _foreign(path: Path, attributes: dict[str, Any]) -> Path:
    """Write a container as another program would."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros(3)
            file.attrs.update(attributes)
    else:
        zarr.create_group(str(path), attributes=attributes).create_array("x", data=np.ones(3))
    return path


def test_nothing_there(tmp_path: Path) -> None:
    line = r"a\.zarr: there is no such store\. Give the path that a stage printed, or see `wsltool"
    with pytest.raises(StoreMissingError, match=line):
        open_store(tmp_path / "a.zarr")


def test_nothing_there_but_a_store_in_the_other_container(tmp_path: Path) -> None:
    write_store(tmp_path / "a.h5", "maps", example_arrays("maps", 1))
    line = r"a\.zarr: there is no such store\. Did you mean .*a\.h5\?$"
    with pytest.raises(StoreMissingError, match=line):
        open_store(tmp_path / "a.zarr")


@both
def test_another_programs_container(tmp_path: Path, suffix: str) -> None:
    path = _foreign(tmp_path / f"a{suffix}", {"title": "mine"})
    line = (
        rf'^a\{suffix}: no attribute "wsltool" with a kind, so this is no store of wsltool\. Give'
    )
    with pytest.raises(StoreCorruptError, match=line):
        open_store(path)


@both
@pytest.mark.parametrize("held", ["not json {", "3", ""])
def test_an_attribute_that_is_none_of_ours(tmp_path: Path, suffix: str, held: str) -> None:
    path = _foreign(tmp_path / f"a{suffix}", {"wsltool": held})
    with pytest.raises(StoreCorruptError, match='no attribute "wsltool" with a kind'):
        open_store(path)


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        ({"format": 2}, r"^a\.h5: store format 2, this wsltool reads up to 1\. Update wsltool\.$"),
        ({"format": "x"}, r'^a\.h5: store format "x", expected a number from 1 to 1\. '),
        ({"kind": "dreams"}, r'^a\.h5: unknown kind "dreams", expected one of images, maps, boxe'),
    ],
)
def test_a_newer_format_or_an_unknown_kind(tmp_path: Path, meta: dict[str, Any], line: str) -> None:
    path = write_store(tmp_path / "a.h5", "maps", example_arrays("maps", 1), meta)
    with pytest.raises(StoreCorruptError, match=line):
        open_store(path)


@pytest.mark.parametrize("name", ["a.zarr", "a.h5"])
def test_a_file_of_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    line = rf"^{name}: cannot be opened as (HDF5|a Zarr v3 group): [^\n]+$"
    with pytest.raises(StoreCorruptError, match=line):
        open_store(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zarr", "a.h5"])
def test_an_empty_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    line = rf"^{name}: cannot be opened as (HDF5|a Zarr v3 group): [^\n]+$"
    with pytest.raises(StoreCorruptError, match=line):
        open_store(tmp_path / name)


def test_zarr_of_version_2(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2, attributes={"wsltool": {}})
    with pytest.raises(StoreCorruptError, match=r"^a\.zarr: cannot be opened as a Zarr v3 group"):
        open_store(tmp_path / "a.zarr")


def test_a_folder_that_names_no_container(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'a store ends in \.zarr or \.h5, this name ends in ""'):
        open_store(tmp_path)


@both
def test_a_store_without_the_array_that_counts_its_rows(tmp_path: Path, suffix: str) -> None:
    arrays = example_arrays("maps", 2)
    del arrays["image_id"]
    with open_store(write_store(tmp_path / f"a{suffix}", "maps", arrays)) as store:
        line = rf'^a\{suffix}: array "image_id" is missing, the store holds image_size, .+ Run: ws'
        with pytest.raises(StoreCorruptError, match=line):
            len(store)


def test_another_kind_than_a_stage_reads(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr", "images", example_arrays("images", 1))
    line = r'^a\.zarr: kind is "images", but boxes reads "maps"\. Run first: wsltool cam$'
    with open_store(path) as store, pytest.raises(StoreKindError, match=line):
        store.require("maps", "boxes", "Run first: wsltool cam")


PLAN = {"id": "0123456789abcdef" * 2, "stage": "cam", "num_blocks": 12}


@pytest.mark.parametrize(
    ("plan", "committed", "state"),
    [
        (PLAN, [0, 1, 3], r"9 of 12 blocks missing \(2, 4, 5, 6, 7, 8, 9, 10, …\)"),
        (PLAN | {"num_blocks": 4}, [0, 3], r"2 of 4 blocks missing \(1, 2\)"),
        (PLAN | {"num_blocks": 1}, [0], "not packed"),
        ({"id": "1", "stage": "train-cls"}, [], "train-cls stopped on the way"),
    ],
)
def test_unfinished_tells_how_far_the_writer_got(
    tmp_path: Path, plan: dict[str, Any], committed: list[int], state: str
) -> None:
    work = WorkInProgress(tmp_path / "a.zarr")
    work.claim(plan)
    for block in committed:
        work.commit(block, {"image_status": np.zeros(1, np.uint8)})
    line = rf"a\.zarr: not finished, {state}\. Run the same command again\.$"
    with pytest.raises(StoreUnfinishedError, match=line):
        open_store(tmp_path / "a.zarr")


def test_a_strangers_folder_with_our_name_for_work_in_progress(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.wip").mkdir()
    (tmp_path / "a.zarr.wip" / "plan.json").write_text("[1, 2]")
    with pytest.raises(StoreExistsError, match=r"a\.zarr\.wip: its plan\.json was not written by"):
        open_store(tmp_path / "a.zarr")
