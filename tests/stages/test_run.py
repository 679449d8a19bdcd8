"""The runner: the same command is safe to run twice and in pieces."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsltool.errors import BadImageError
from wsltool.stages import run as runner
from wsltool.stages.plan import rows_per_block
from wsltool.stores.open import open_store
from wsltool.stores.verify import verify_store
from wsltool.stores.wip import WorkInProgress
from wsltool.stores.write import StoreWriter

from .fake_stage import (
    NUM_BLOCKS,
    Killed,
    Listener,
    contents,
    die_at,
    ends_killed,
    fake,
)

both = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


# One whole run


def test_an_uninterrupted_run_keeps_the_schema_and_leaves_nothing_else(source: Path) -> None:
    made = fake(source)
    assert made == source.with_name("in.fake.zarr")
    assert sorted(file.name for file in source.parent.iterdir()) == ["in.fake.zarr", "in.zarr"]
    with open_store(made) as store:
        assert verify_store(store) == []
        expected = [n % 3 if n // 8 != 2 else 0 for n in range(50)]
        assert np.diff(store.whole("box_start")).tolist() == expected
        assert store.shape("map_class") == (50, 3)
        assert store.whole("map_class")[0].tolist() == [0, -1, -1]
        assert store.whole("map_score")[0].tolist() == [0, -np.inf, -np.inf]
        meta = store.meta
    assert (meta["stage"], meta["kind"], meta["revision"], meta["limit"]) == (
        "fake",
        "boxes",
        1,
        None,
    )
    assert meta["params"] == {"factor": 2.0, "flag": None}
    assert meta["inputs"]["images"]["path"] == "in.zarr"
    assert meta["skipped"] == 0
    assert {"version", "created", "compute", "digest", "id"} <= set(meta)


def test_the_container_does_not_change_the_arrays(source: Path, whole: dict[str, Any]) -> None:
    assert contents(fake(source, output=source.with_name("b.h5"))) == whole


def test_the_name_is_told_once_when_the_output_is_claimed(source: Path) -> None:
    listener = Listener()
    told_before: list[bool] = []
    fake(source, report=listener, on_block=lambda _: told_before.append(bool(listener.paths)))
    assert listener.paths == [source.with_name("in.fake.zarr")]
    assert all(told_before)


# Interrupted and continued


@both
@pytest.mark.parametrize("block", range(NUM_BLOCKS))
def test_a_run_continues_where_it_was_killed(
    source: Path, whole: dict[str, Any], block: int, suffix: str
) -> None:
    output, done = source.with_name(f"b{suffix}"), []
    ends_killed(fake, source, output=output, on_block=die_at(block))
    assert not output.exists()
    fake(source, output=output, done=done)
    assert done == list(range(block, NUM_BLOCKS))
    assert contents(output) == whole
    assert not WorkInProgress(output).folder.exists()


@both
@pytest.mark.parametrize("step", ["create", "append", "finish"])
def test_a_run_killed_while_packing_packs_again(
    source: Path,
    whole: dict[str, Any],
    suffix: str,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, done = source.with_name(f"b{suffix}"), []
    original = getattr(StoreWriter, step)
    calls = itertools.count()

    def dies(*args: Any, **more: Any) -> Any:
        if next(calls) == 5 or step == "finish":
            raise Killed
        return original(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, step, dies)
        ends_killed(fake, source, output=output)
    assert not output.exists()
    fake(source, output=output, done=done)
    assert done == []
    assert contents(output) == whole
    assert sorted(f.name for f in source.parent.glob("b*")) == [output.name]


@both
@pytest.mark.parametrize("how_far", ["untouched", "half removed", "without its plan"])
def test_leavings_of_a_kill_between_publishing_and_tidying_are_removed(
    source: Path, suffix: str, how_far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, listener = source.with_name(f"b{suffix}"), Listener()

    def dies(work: WorkInProgress) -> None:
        parts = sorted(work.folder.glob("part-*"))
        doomed = {"untouched": [], "half removed": parts[:3]}.get(how_far, parts[:3])
        for file in doomed + [work.folder / "plan.json"] * (how_far == "without its plan"):
            file.unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(WorkInProgress, "remove", dies)
        ends_killed(fake, source, output=output)
    before = contents(output)
    assert WorkInProgress(output).folder.exists()
    fake(source, output=output, report=listener)
    assert listener.lines == [f"{output}: finished already, left alone."]
    assert contents(output) == before
    assert not WorkInProgress(output).folder.exists()


def test_a_finished_output_is_left_alone_and_its_name_told(source: Path) -> None:
    first = contents(fake(source))
    listener, done = Listener(), []
    made = fake(source, report=listener, done=done)
    assert (listener.paths, done) == ([made], [])
    assert contents(made) == first


def test_an_error_keeps_the_blocks_that_are_committed(source: Path) -> None:
    done: list[int] = []
    with pytest.raises(BadImageError, match=r'^in\.zarr row 30 "image 30": it is bad\. Pass --on-'):
        fake(source, bad=(30,))
    fake(source, done=done)
    assert done == [3, 4, 5, 6]


# Blocks


@given(row_bytes=st.integers(1, 1 << 40))
def test_a_block_stays_below_64_megabytes_where_a_row_does(row_bytes: int) -> None:
    rows = rows_per_block(row_bytes)
    assert rows in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert rows == 1 or rows * row_bytes <= 64 << 20
    assert rows == 256 or 2 * rows * row_bytes > 64 << 20


def test_a_stage_that_says_nothing_of_its_rows_is_cut_by_the_rows_that_it_reads(
    source: Path,
) -> None:
    with open_store(source) as source:
        settings = runner.Settings.of({})
        job = runner.row_job(settings, "fake", "boxes", source, params={})
        assert job.row_bytes == source.row_bytes
        arrays = sum(source.whole(name).nbytes for name in source.names)
        assert abs(job.row_bytes * len(source) / arrays - 1) < 3
