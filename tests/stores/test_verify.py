"""`verify` finds each breakage of the schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from wsltool.stages.verify import verify
from wsltool.stores.schema import KINDS, string_array

from .examples import example_arrays, write_store

Array = np.ndarray[Any, Any]
Change = Callable[[dict[str, Array]], None]


def _set(name: str, index: Any, value: Any) -> Change:
    def change(arrays: dict[str, Array]) -> None:
        arrays[name][index] = value

    return change


def _replace(name: str, make: Callable[[Array], Array]) -> Change:
    def change(arrays: dict[str, Array]) -> None:
        arrays[name] = make(arrays[name])

    return change


def _without(name: str) -> Change:
    def change(arrays: dict[str, Array]) -> None:
        del arrays[name]

    return change


def _empty_slot_with_a_score(arrays: dict[str, Array]) -> None:
    arrays["map_class"][1, 1] = -1


def _candidates_of_an_empty_slot(arrays: dict[str, Array]) -> None:
    arrays["map_class"][4, 1], arrays["map_score"][4, 1] = -1, -np.inf
    arrays["candidate_slot"][-1] = 1


BREAKAGES: list[tuple[str, Change, str]] = [
    ("maps", _without("map"), 'array "map" is missing'),
    ("images", _without("label"), 'array "label" is missing'),
    ("boxes", _without("box_start"), 'array "box_start" is missing'),
    ("images", _without("mask_start"), 'array "mask_path" has no offsets "mask_start"'),
    (
        "maps",
        _replace("map", lambda a: a.astype(np.int32)),
        'array "map" is int32, expected float32 or float16 or float64',
    ),
    (
        "maps",
        _replace("map_class", lambda a: a[:3]),
        'array "map_class" has 3 along image, others 5',
    ),
    (
        "maps",
        _replace("class_name", lambda a: a[:2]),
        'array "class_score" has 3 along class, others 2',
    ),
    (
        "maps",
        _replace("map_extent", lambda a: a[:, :3]),
        'array "map_extent" has 3 along xyxy, others 4',
    ),
    ("boxes", _set("box_start", 0, 1), '"box_start" must start at 0 and never fall'),
    ("boxes", _set("box_start", 2, 99), '"box_start" must start at 0 and never fall'),
    ("boxes", _set("box_start", -1, 99), '"box_start" ends at 99, the axis box has '),
    ("boxes", _set("box_class", 0, 3), '"box_class" holds 3, expected 0 to 2'),
    ("boxes", _set("box_class", 0, -1), '"box_class" holds -1, expected 0 to 2'),
    ("boxes", _set("box", (0, 2), -1), ", expected x0 <= x1 and y0 <= y1"),
    ("boxes", _set("box", (0, 0), np.nan), ", expected x0 <= x1 and y0 <= y1"),
    ("maps", _set("map_class", (0, 0), 3), '"map_class" holds 3, expected -1 to 2'),
    ("maps", _set("image_status", 0, 3), '"image_status" holds 3, expected 0 to 2'),
    ("maps", _set("suppressed", (0, 0, 0, 0), 2), '"suppressed" holds 2, expected 0 to 1'),
    ("maps", _set("map", (3, 1, 2, 2), np.nan), '"map" holds NaN or infinity in row 3'),
    ("maps", _set("map", (3, 1, 2, 2), np.inf), '"map" holds NaN or infinity in row 3'),
    ("maps", _set("map_score", (2, 1), 9), '"map_score" rises along the slots in rows 0 to 5'),
    ("maps", _set("map_score", (2, 1), np.nan), '"map_score" must be -inf in empty slots and a '),
    ("maps", _empty_slot_with_a_score, '"map_score" must be -inf in empty slots and a number'),
    ("maps", _without("candidate_start"), 'array "candidate" has no offsets "candidate_start"'),
    (
        "maps",
        _without("candidate_level"),
        'array "candidate_level" is missing, but "candidate_start" is there',
    ),
    ("images", _without("box_class"), 'array "box_class" is missing, but "box_start" is there'),
    (
        "features",
        _without("pattern_class"),
        'array "pattern_class" is missing, but "pattern_cell" is there',
    ),
    (
        "maps",
        _replace("candidate_slot", lambda a: a[1:]),
        'array "candidate_slot" has 12 along candidate, others 13',
    ),
    ("maps", _set("candidate_start", -1, 99), '"candidate_start" ends at 99, the axis candidate'),
    ("maps", _set("candidate", (4, 1), np.nan), "expected finite x0 < x1 and y0 < y1, image 1"),
    ("maps", _set("candidate", (4, 2), -9), "expected finite x0 < x1 and y0 < y1, image 1"),
    ("maps", _set("candidate_level", 4, 0), '"candidate_level" holds 0, expected 1 to 32767'),
    (
        "maps",
        _set("candidate_score", 0, 1.5),
        '"candidate_score" is 1.5, expected 0 to 1, image 0',
    ),
    ("maps", _set("candidate_score", 0, np.nan), '"candidate_score" is nan, expected 0 to 1'),
    (
        "maps",
        _set("candidate_slot", -1, 2),
        '"candidate_slot" is 2, expected a slot that holds a map, image 4',
    ),
    (
        "maps",
        _set("candidate_slot", 0, -1),
        '"candidate_slot" is -1, expected a slot that holds a map, image 0',
    ),
    ("maps", _candidates_of_an_empty_slot, '"candidate_slot" is 1, expected a slot that holds a'),
    ("maps", _set("candidate_slot", 0, 1), '"candidate" must stand by slot, then level, then f'),
    ("maps", _set("candidate_level", 0, 9), '"candidate" must stand by slot, then level, then f'),
    ("maps", _set("candidate_score", 2, 0.9), '"candidate" must stand by slot, then level, then f'),
    ("images", _set("label", (0, 0), 7), '"label" holds 7, expected 0, 1 or 255'),
    ("images", _set("image_size", (1, 0), -3), '"image_size" holds -3, expected 0 to '),
    (
        "images",
        _replace("image_id", lambda a: string_array(["x", "y", "x", "z", "w"])),
        '"image_id" holds "x" twice',
    ),
]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@pytest.mark.parametrize(("kind", "change", "line"), BREAKAGES)
def test_a_breakage_of_the_schema_is_found(
    tmp_path: Path, kind: str, change: Change, line: str, suffix: str
) -> None:
    arrays = example_arrays(kind, 5)
    change(arrays)
    found = verify(write_store(tmp_path / f"a{suffix}", kind, arrays))
    assert len(found["problems"]) == 1
    assert line in found["problems"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_in_a_good_store(tmp_path: Path, kind: str) -> None:
    arrays = example_arrays(kind, 5)
    if "label" in arrays:
        arrays["label"][0, 0] = 255
    found = verify(write_store(tmp_path / "a.zarr", kind, arrays))
    assert found["problems"] == []
    assert (found["kind"], found["num_images"]) == (kind, 5)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_candidates_are_checked_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr("wsltool.stores.verify._CANDIDATE_STEP", step)
    arrays = example_arrays("maps", 5)
    assert verify(write_store(tmp_path / "good.h5", "maps", arrays))["problems"] == []
    arrays["candidate_level"][11] = 6  # the first of two of the last image
    [problem] = verify(write_store(tmp_path / "bad.h5", "maps", arrays))["problems"]
    assert problem == ('"candidate" must stand by slot, then level, then falling score, image 4')


def test_changed_values_are_found_by_the_digest(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr", "maps", example_arrays("maps", 5))
    zarr.open_group(str(path), mode="r+")["map"][0, 0, 0, 0] = 123.0
    [problem] = verify(path)["problems"]
    assert problem.startswith("digest is sha256:")
    assert ", recorded sha256:" in problem


def test_every_damaged_array_is_named(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr", "maps", example_arrays("maps", 5))
    for name in ("map", "image_note"):
        [file] = (f for f in (path / name / "c").rglob("*") if f.is_file())
        file.unlink()
    problems = verify(path)["problems"]
    assert [problem.split(": ")[1] for problem in problems] == ["array image_note", "array map"]


def test_axes_under_other_names_are_found(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.h5", "maps", example_arrays("maps", 5))
    with h5py.File(path, "a") as file:
        file["map"].attrs["dimension_names"] = ["image", "slot", "col", "row"]
    [problem] = verify(path)["problems"]
    assert problem.startswith("array \"map\" names its axes ('image', 'slot', 'col', 'row'), exp")


def test_an_array_with_too_few_axes_is_found(tmp_path: Path) -> None:
    arrays = example_arrays("maps", 5)
    arrays["map_score"] = arrays["map_score"][:, 0]
    [problem] = verify(write_store(tmp_path / "a.h5", "maps", arrays))["problems"]
    assert problem == "array \"map_score\" has shape (5,), expected axes ('image', 'slot')"
