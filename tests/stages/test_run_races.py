"""Several processes at the same output at the same time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from wsltool.errors import StoreExistsError
from wsltool.stages import run as runner
from wsltool.stores.open import open_store
from wsltool.stores.wip import WorkInProgress

from .fake_stage import (
    contents,
    die_at,
    ends_killed,
    fake,
    write_images,
)

both = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


# Races


@both
def test_another_process_that_publishes_first_is_no_error(
    source: Path, whole: dict[str, Any], suffix: str
) -> None:
    output, done = source.with_name(f"b{suffix}"), []

    def other_finishes(index: int) -> None:
        if index == 3:
            fake(source, output=output, done=done)

    assert fake(source, output=output, on_block=other_finishes) == output
    assert done == [3, 4, 5, 6]
    assert contents(output) == whole
    assert not WorkInProgress(output).folder.exists()


@both
@pytest.mark.parametrize("step", ["part_shapes", "part"])
@pytest.mark.parametrize("call", [0, 4])
def test_another_packer_that_publishes_first_is_no_error(
    source: Path,
    whole: dict[str, Any],
    suffix: str,
    step: str,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, calls = source.with_name(f"b{suffix}"), itertools.count()
    original = getattr(WorkInProgress, step)

    def other_packs(work: WorkInProgress, block: int) -> Any:
        if next(calls) == call:
            monkeypatch.setattr(WorkInProgress, step, original)
            fake(source, output=output)
        return original(work, block)

    monkeypatch.setattr(WorkInProgress, step, other_packs)
    assert fake(source, output=output) == output
    assert contents(output) == whole
    assert sorted(file.name for file in source.parent.glob("b*")) == [output.name]


@both
def test_another_packer_that_publishes_last_is_no_error(
    source: Path, whole: dict[str, Any], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, original = source.with_name(f"b{suffix}"), runner.publish

    def late(scratch: Path, *args: Any) -> None:
        monkeypatch.setattr(runner, "publish", original)
        kept = scratch.rename(output.with_name("kept" + suffix))
        fake(source, output=output)
        original(kept, *args)

    monkeypatch.setattr(runner, "publish", late)
    assert fake(source, output=output) == output
    assert contents(output) == whole


@both
def test_a_stranger_that_takes_the_name_meanwhile_stays(
    source: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, original = source.with_name(f"b{suffix}"), runner.publish

    def late(scratch: Path, *args: Any) -> None:
        write_images(output, 3, store_id="4" * 32)
        original(scratch, *args)

    monkeypatch.setattr(runner, "publish", late)
    line = rf"b\{suffix}: another store took this name while this one was made\. Pass -o\.$"
    with pytest.raises(StoreExistsError, match=line):
        fake(source, output=output)
    with open_store(output) as store:
        assert store.meta["id"] == "4" * 32


@both
def test_a_run_whose_work_was_replaced_fails_and_never_mixes(source: Path, suffix: str) -> None:
    output = source.with_name(f"b{suffix}")

    def other_replaces(index: int) -> None:
        if index == 3:
            ends_killed(fake, source, output=output, factor=3.0, overwrite=True, on_block=die_at(2))

    line = rf"b\{suffix}: another process took this work away, perhaps with --overwrite\. Run the"
    with pytest.raises(StoreExistsError, match=line):
        fake(source, output=output, on_block=other_replaces)
    done: list[int] = []
    fake(source, output=output, factor=3.0, done=done)
    assert done == [2, 3, 4, 5, 6]
    clean = contents(fake(source, output=source.with_name("clean.zarr"), factor=3.0))
    assert contents(output) == clean


@both
def test_a_run_whose_output_was_replaced_fails_and_never_mixes(source: Path, suffix: str) -> None:
    output = source.with_name(f"b{suffix}")

    def other_replaces(index: int) -> None:
        if index == 3:
            fake(source, output=output, factor=3.0, overwrite=True)

    with pytest.raises(StoreExistsError, match="another process took this work away"):
        fake(source, output=output, on_block=other_replaces)
    with open_store(output) as store:
        assert store.meta["params"]["factor"] == 3.0


def test_a_store_that_is_published_while_it_is_replaced_survives(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsltool.stages import plan

    original, output = plan.remove_output, source.with_name("in.fake.zarr")
    fake(source)

    def late(*args: Any) -> None:
        monkeypatch.setattr(plan, "remove_output", original)
        fake(source, factor=3.0, overwrite=True)
        original(*args)

    monkeypatch.setattr(plan, "remove_output", late)
    done: list[int] = []
    fake(source, factor=3.0, overwrite=True, done=done)
    assert done == []
    assert contents(output)
