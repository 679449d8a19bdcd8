"""Work in progress: parts, plans, and who may touch them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsltool.errors import StoreCorruptError, StoreExistsError
from wsltool.stores.schema import string_array
from wsltool.stores.wip import WorkInProgress, place_file, wip_path

from .examples import TEXTS, same

PLAN = {"id": "0123456789abcdef" * 2, "stage": "cam", "num_blocks": 2}
OTHER = PLAN | {"id": "fedcba9876543210" * 2}


@pytest.fixture
def work(tmp_path: Path) -> WorkInProgress:
    work = WorkInProgress(tmp_path / "a.zarr")
    work.claim(PLAN)
    return work


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def _put(text: bytes) -> Callable[[BinaryIO], None]:
    return lambda file: _discard(file.write(text))


def _discard(_: Any) -> None:
    return None


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_strings_come_back_from_a_part(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    work = WorkInProgress(tmp_path_factory.mktemp("work") / "a.zarr")
    work.claim(PLAN)
    work.commit(0, {"image_note": string_array(texts), "image_status": np.zeros(1, np.uint8)})
    assert work.part(0)["image_note"].tolist() == texts
    assert work.part_shapes(0)["image_note"] == ((len(texts),), "string")


def test_one_long_string_does_not_blow_up_a_part(work: WorkInProgress) -> None:
    texts = string_array(["x" * 1_000_000] + [""] * 255)
    work.commit(0, {"image_note": texts})
    assert same(work.part(0)["image_note"], texts)
    [part] = work.folder.glob("part-*")
    assert part.stat().st_size < 1_100_000


def test_arrays_of_every_dtype_and_shape_come_back(work: WorkInProgress) -> None:
    rows = {
        "map": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float16),
        "box": np.zeros((0, 4)),
        "box_start": np.array([3, 0, 4]),
        "image_note": string_array(TEXTS),
        "label": np.array([[255]], np.uint8),
    }
    work.commit(1, rows)
    assert work.committed() == {1}
    assert all(same(values, rows[name]) for name, values in work.part(1).items())
    assert list(work.part(1)) == list(rows)
    assert work.part_shapes(1)["map"] == ((2, 3, 4, 5), "float16")
    assert same(work.part_array(1, "box_start"), rows["box_start"])


def test_a_part_is_never_replaced(work: WorkInProgress) -> None:
    work.commit(0, {"image_status": np.zeros(1, np.uint8)})
    work.commit(0, {"image_status": np.ones(1, np.uint8)})
    assert work.part(0)["image_status"].tolist() == [0]
    assert len(_names(work.folder)) == 2  # the plan and the part, no leavings


def test_the_first_plan_holds(work: WorkInProgress) -> None:
    assert WorkInProgress(work.output).claim(OTHER) == PLAN


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty"])
def test_a_damaged_part_is_told_with_the_cure(work: WorkInProgress, how: str) -> None:
    work.commit(0, {"map": np.random.default_rng(0).normal(size=(9, 9))})
    [part] = work.folder.glob("part-*")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes({"flipped": data, "truncated": data[:200], "empty": b""}[how])
    line = r"part-0123456789ab-00000000\.npz: the part is damaged \(.+\)\. Remove this file and run"
    with pytest.raises(StoreCorruptError, match=line):
        work.part(0)


def test_names_that_only_look_like_parts_are_none(work: WorkInProgress) -> None:
    for name in ("part-x.npz", "part-00000001.npz", "part-fedcba987654-00000001.npz", ".tmp-part"):
        (work.folder / name).touch()
    assert work.missing(2) == [0, 1]


def test_a_process_whose_plan_was_replaced_cannot_commit(work: WorkInProgress) -> None:
    taker = WorkInProgress(work.output)
    taker.claim(OTHER)
    taker.give_way()
    assert not work.folder.exists()
    taker.claim(OTHER)
    line = r"a\.zarr: another process took this work away, perhaps with --overwrite\. Run the same"
    with pytest.raises(StoreExistsError, match=line):
        work.commit(0, {"map": np.zeros(3)})
    taker.commit(1, {"map": np.zeros(3)})
    assert (taker.committed(), work.committed()) == ({1}, set())


def test_a_process_whose_work_is_gone_cannot_commit(work: WorkInProgress) -> None:
    work.remove()
    with pytest.raises(StoreExistsError, match="another process took this work away"):
        work.commit(0, {"map": np.zeros(3)})


def test_way_is_not_given_to_a_plan_that_came_meanwhile(work: WorkInProgress) -> None:
    late = WorkInProgress(work.output)
    late.claim(OTHER)  # finds the old plan
    (work.folder / "plan.json").unlink()
    WorkInProgress(work.output).claim(OTHER)
    late.give_way()
    assert WorkInProgress(work.output).plan() == OTHER


@pytest.mark.parametrize("name", ["notes.txt", "data"])
def test_a_strangers_file_stays_and_is_named(work: WorkInProgress, name: str) -> None:
    (work.folder / name).write_text("mine")
    work.commit(0, {"map": np.zeros(3)})  # going on is fine
    line = rf"a\.zarr\.wip: holds a file that was not made by wsltool \({name}\)\. Move it away"
    with pytest.raises(StoreExistsError, match=line):
        work.give_way()
    work.remove()
    assert _names(work.folder) == [name]
    with pytest.raises(StoreExistsError, match=line):
        work.claim(PLAN)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 3, "stage": "cam"}', '{"id": "x"}'])
def test_a_plan_that_is_none_of_ours_stays(tmp_path: Path, text: str) -> None:
    work = WorkInProgress(tmp_path / "a.zarr")
    work.folder.mkdir()
    (work.folder / "plan.json").write_text(text)
    with pytest.raises(StoreExistsError, match=r"\.wip: its plan\.json was not written by wsltool"):
        work.claim(PLAN)
    assert (work.folder / "plan.json").read_text() == text


@pytest.mark.parametrize("what", ["file", "link"])
def test_something_else_at_the_folders_name_stays(tmp_path: Path, what: str) -> None:
    work = WorkInProgress(tmp_path / "a.zarr")
    if what == "file":
        work.folder.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        work.folder.symlink_to(tmp_path / "elsewhere")
    line = r"a\.zarr\.wip: is no folder of wsltool's, but the work on a\.zarr belongs there\. Move"
    with pytest.raises(StoreExistsError, match=line):
        work.claim(PLAN)
    assert os.path.lexists(work.folder)


def test_leavings_of_a_removal_that_was_killed_are_taken_over(work: WorkInProgress) -> None:
    work.commit(0, {"map": np.zeros(3)})
    (work.folder / "plan.json").unlink()
    (work.folder / ".tmp-pack-1.zarr").mkdir()
    (work.folder / ".nfs0001").touch()
    assert WorkInProgress(work.output).claim(OTHER) == OTHER
    assert WorkInProgress(work.output).missing(2) == [0, 1]


def test_a_file_is_placed_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        place_file(tmp_path / "a", fail)
    assert _names(tmp_path) == []
    assert place_file(tmp_path / "a", _put(b"one"))
    assert not place_file(tmp_path / "a", _put(b"two"))
    assert (tmp_path / "a").read_bytes() == b"one"
    assert place_file(tmp_path / "a", _put(b"two"), replace=True)
    assert (tmp_path / "a").read_bytes() == b"two"
    assert _names(tmp_path) == ["a"]


def test_a_file_is_placed_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert place_file(tmp_path / "a", _put(b"one"))
    assert not place_file(tmp_path / "a", _put(b"two"))
    assert (tmp_path / "a").read_bytes() == b"one"
    assert _names(tmp_path) == ["a"]


def test_the_folder_stands_beside_the_output() -> None:
    assert wip_path(Path("x/val.cam.zarr")) == Path("x/val.cam.zarr.wip")
