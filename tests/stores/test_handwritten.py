"""Stores that somebody else writes to the schema are as good an input as ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import wsltool
from wsltool.errors import StoreCorruptError, StoreError
from wsltool.stores.open import open_store
from wsltool.stores.schema import KINDS

Array = np.ndarray[Any, Any]

META = {"kind": "maps"}
NAMES = ["first", "zweites ü", "", "a/b"]


def _arrays() -> dict[str, Array]:
    """Return two maps of one class, of four images of 8 × 6 pixels; the last has none."""
    map_NSHW = np.zeros((4, 1, 3, 4), np.float32)
    map_NSHW[0, 0, :, 2:] = 1  # right half: x from 4 to 8
    map_NSHW[1, 0, 2] = 1  # lowest third: y from 4 to 6
    return {
        "image_size": np.tile(np.array([8, 6], np.int32), (4, 1)),
        "map": map_NSHW,
        "map_class": np.array([[0], [1], [0], [-1]], np.int32),
        "map_score": np.array([[2], [3], [1], [-np.inf]], np.float32),
        "map_extent": np.tile(np.array([0, 0, 8, 6], np.float32), (4, 1)),
        "class_score": np.arange(8, dtype=np.float32).reshape(4, 2),
    }


def _by_zarr(path: Path) -> Path:
    """Write with plain zarr: one chunk an array, no dimension names, no consolidation."""
    group = zarr.create_group(str(path), attributes={"wsltool": META})
    full = {"config": {"write_empty_chunks": True}}
    for name, values in _arrays().items():
        group.create_array(name, shape=values.shape, dtype=values.dtype, **full)[:] = values
    for name, texts in (("image_id", NAMES), ("class_name", ["cat", "dog"])):
        array = group.create_array(name, shape=(len(texts),), dtype=str, **full)
        array[:] = np.array(texts, dtype=np.dtypes.StringDType())
    return path


def _by_zarr_in_pieces(path: Path) -> Path:
    """Write with chunks along every axis, and strings of fixed width."""
    group = zarr.create_group(str(path), attributes={"wsltool": META})
    full: dict[str, Any] = {"config": {"write_empty_chunks": True}}
    for name, values in _arrays().items():
        chunks = tuple(max(1, size // 2) for size in values.shape)
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=chunks, **full
        )
        array[:] = values
    for name, texts in (("image_id", NAMES), ("class_name", ["cat", "dog"])):
        with pytest.warns(zarr.errors.UnstableSpecificationWarning):
            group.create_array(name, data=np.array(texts), **full)
    return path


def _by_h5py(path: Path) -> Path:
    """Write with plain h5py: contiguous arrays, no dimension names."""
    with h5py.File(path, "w") as file:
        file.attrs["wsltool"] = '{"kind": "maps"}'
        for name, values in _arrays().items():
            file[name] = values
        file["image_id"] = NAMES
        file["class_name"] = ["cat", "dog"]
    return path


def _by_h5py_with_fixed_strings(path: Path) -> Path:
    _by_h5py(path)
    with h5py.File(path, "a") as file:
        del file["class_name"]
        file["class_name"] = np.array([b"cat", b"dog"])
    return path


WRITERS: list[tuple[Callable[[Path], Path], str]] = [
    (_by_zarr, ".zarr"),
    (_by_zarr_in_pieces, ".zarr"),
    (_by_h5py, ".h5"),
    (_by_h5py_with_fixed_strings, ".h5"),
]
any_writer = pytest.mark.parametrize(("write", "suffix"), WRITERS)


@any_writer
def test_boxes_reads_it(
    tmp_path: Path, write: Callable[[Path], Path], suffix: str, recwarn: Any
) -> None:
    path = write(tmp_path / f"a{suffix}")
    recwarn.clear()
    made = wsltool.boxes(path, threshold=0.5)
    with open_store(made) as store:
        assert store.whole("image_id").tolist() == NAMES
        assert store.class_names() == ["cat", "dog"]
        assert store.whole("box_start").tolist() == [0, 1, 2, 2, 2]
        assert store.whole("box").tolist() == [[4, 0, 8, 6], [0, 4, 8, 6]]
        assert store.whole("box_class").tolist() == [0, 1]
        assert store.whole("image_status").tolist() == [0, 0, 0, 0]
        assert store.whole("image_note").tolist() == ["", "", "", ""]
        assert store.meta["inputs"]["maps"]["digest"].startswith("sha256:")
    assert len(recwarn) == 0


@any_writer
def test_verify_finds_it_good(tmp_path: Path, write: Callable[[Path], Path], suffix: str) -> None:
    assert wsltool.verify(write(tmp_path / f"a{suffix}"))["problems"] == []


@any_writer
def test_the_same_command_twice_is_safe_also_without_an_id(
    tmp_path: Path, write: Callable[[Path], Path], suffix: str
) -> None:
    path = write(tmp_path / f"a{suffix}")
    with open_store(wsltool.boxes(path)) as store:
        first = store.meta["id"]
    with open_store(wsltool.boxes(path)) as store:
        assert store.meta["id"] == first


def test_both_containers_give_the_same_boxes(tmp_path: Path) -> None:
    made = [
        wsltool.boxes(_by_zarr(tmp_path / "a.zarr")),
        wsltool.boxes(_by_h5py(tmp_path / "b.h5")),
    ]
    digests = set()
    for path in made:
        with open_store(path) as store:
            digests.add(store.meta["digest"])
    assert len(digests) == 1


@any_writer
def test_convert_brings_it_to_the_other_container(
    tmp_path: Path, write: Callable[[Path], Path], suffix: str
) -> None:
    path = write(tmp_path / f"a{suffix}")
    with open_store(path) as old, open_store(wsltool.convert(path)) as new:
        assert new.path.suffix != suffix
        for name in KINDS["maps"]:
            assert (name in old) == (name in new)
            if name in old:
                assert old.whole(name).tolist() == new.whole(name).tolist(), name


def test_chunks_of_zeros_that_zarr_left_out_are_told_with_the_cure(tmp_path: Path) -> None:
    path = _by_zarr(tmp_path / "a.zarr")
    group = zarr.open_group(str(path), mode="a")
    del group["map_class"]
    group.create_array("map_class", data=np.zeros((4, 1), np.int32))
    line = (
        r"^a\.zarr: array map_class: chunk c/0/0 is missing\. Copy or make the store again; zarr "
        r"leaves chunks of zeros out unless write_empty_chunks is set\.$"
    )
    with pytest.raises(StoreCorruptError, match=line):
        wsltool.boxes(path)


def test_a_missing_chunk_in_the_middle_of_a_row_is_no_zeros(tmp_path: Path) -> None:
    path = _by_zarr_in_pieces(tmp_path / "a.zarr")
    (path / "map" / "c" / "0" / "0" / "2" / "1").unlink()
    with open_store(path) as store, pytest.raises(StoreCorruptError, match="c/0/0/2/1 is missing"):
        store.rows("map", 0, 1)


@pytest.mark.parametrize("lacking", ["map", "map_extent", "image_id", "class_name"])
def test_an_array_that_is_not_there_is_named(tmp_path: Path, lacking: str) -> None:
    with h5py.File(_by_h5py(tmp_path / "a.h5"), "a") as file:
        del file[lacking]
    line = rf'^a\.h5: array "{lacking}" is missing, the store holds .+ Run: wsltool verify a\.h5$'
    with pytest.raises(StoreCorruptError, match=line):
        wsltool.boxes(tmp_path / "a.h5")


def test_a_store_without_rows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["wsltool"] = '{"kind": "maps"}'
        for name, values in _arrays().items():
            file[name] = values[:0]
        file["image_id"] = np.zeros(0, h5py.string_dtype())
        file["class_name"] = ["cat", "dog"]
    line = r"^a\.h5: holds no images, expected at least 1\. Nothing can be made of it\.$"
    with pytest.raises(StoreError, match=line):
        wsltool.boxes(path)
