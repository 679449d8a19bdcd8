"""Several processes share the blocks of one store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsltool.errors import UsageError
from wsltool.stages.options import Shard, parse_shard

from .fake_stage import (
    NUM_BLOCKS,
    Listener,
    contents,
    die_at,
    ends_killed,
    fake,
)

FOUR = ["0/4", "1/4", "2/4", "3/4"]


# Shards


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9])
def test_shards_in_any_order_make_the_same_store(
    source: Path, whole: dict[str, Any], count: int
) -> None:
    order = np.random.default_rng(count).permutation(count)
    output = source.with_name("b.zarr")
    for place, index in enumerate(order):
        done: list[int] = []
        listener = Listener()
        fake(source, output=output, shard=f"{index}/{count}", done=done, report=listener)
        assert done == list(range(index, NUM_BLOCKS, count))
        assert listener.paths == [output]
        if output.exists():
            assert set(order[place + 1 :]) <= set(range(NUM_BLOCKS, count))
        else:
            assert "this share is done, " in listener.lines[-1]
            assert "of 7 blocks of other shards are missing." in listener.lines[-1]
    assert contents(output) == whole


def test_the_number_of_shards_may_change_between_runs(source: Path, whole: dict[str, Any]) -> None:
    output = source.with_name("b.zarr")
    done: dict[str, list[int]] = {"1/3": [], "0/2": [], "rest": []}
    fake(source, output=output, shard="1/3", done=done["1/3"])
    fake(source, output=output, shard="0/2", done=done["0/2"])
    fake(source, output=output, done=done["rest"])
    assert done == {"1/3": [1, 4], "0/2": [0, 2, 6], "rest": [3, 5]}
    assert contents(output) == whole


def test_a_shard_run_again_does_nothing(source: Path) -> None:
    fake(source, shard="1/3")
    done: list[int] = []
    listener = Listener()
    fake(source, shard="1/3", done=done, report=listener)
    assert done == []
    assert listener.lines == [
        f"{source.with_name('in.fake.zarr')}: this share is done, 5 of 7 blocks of other shards "
        "are missing."
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "shards", "before"),
    [
        (".zarr", FOUR, "nothing"),
        (".h5", FOUR, "nothing"),
        (".zarr", ["0/1"] * 3, "nothing"),
        (".h5", ["0/1"] * 3, "nothing"),
        (".zarr", FOUR, "an old output"),
        (".h5", FOUR, "an old output"),
        (".zarr", FOUR, "old work"),
        (".h5", ["0/1"] * 3, "old work"),
    ],
)
def test_processes_that_start_at_one_instant_make_the_same_store(
    source: Path, suffix: str, shards: list[str], before: str
) -> None:
    output, go = source.with_name(f"b{suffix}"), source.with_name("go")
    if before == "an old output":
        fake(source, output=output)
    elif before == "old work":
        ends_killed(fake, source, output=output, on_block=die_at(4))
    command = [sys.executable, "-m", "tests.stages.fake_stage", str(source), str(output)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([*command, s, str(go)], cwd=root, **pipes) for s in shards]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * len(shards)
    go.touch()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert ([process.returncode for process in processes], "".join(said)) == ([0] * len(shards), "")
    clean = fake(source, output=source.with_name("clean.zarr"), factor=3.0)
    assert contents(output) == contents(clean)
    names = {file.name for file in source.parent.iterdir()}
    assert names == {"in.zarr", output.name, "go", "clean.zarr"}


SLURM = {"ID": "0", "MIN": "0", "MAX": "3", "STEP": "1", "COUNT": "4"}


def _slurm(**values: str) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": value for name, value in (SLURM | values).items()}


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, (0, 4)),
        ({"ID": "3"}, (3, 4)),
        ({"ID": "9", "MIN": "5", "MAX": "9", "STEP": "2", "COUNT": "3"}, (2, 3)),
        ({"ID": "8", "MIN": "2", "MAX": "9", "STEP": "3", "COUNT": "3"}, (2, 3)),
        ({"ID": "7", "MIN": "7", "MAX": "7", "STEP": "1", "COUNT": "1"}, (0, 1)),
    ],
)
def test_a_slurm_array_is_counted_from_its_minimum_in_its_step(
    values: dict[str, str], place: tuple[int, int]
) -> None:
    assert parse_shard("slurm", _slurm(**values)) == Shard(*place)


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"ID": "1", "MIN": "1", "MAX": "5", "COUNT": "3"}, r"3 tasks between 1 and 5, step 1"),
        ({"ID": "2", "STEP": "3", "COUNT": "2"}, r"2 tasks between 0 and 3, step 3"),
        ({"STEP": "0"}, r"4 tasks between 0 and 3, step 0"),
    ],
)
def test_a_slurm_array_with_gaps_is_refused(values: dict[str, str], numbers: str) -> None:
    line = (
        rf"^--shard slurm: the job array has gaps \({numbers}\), so shares would be left out\. "
        r"Submit all tasks of the array, or pass --shard I/N\.$"
    )
    with pytest.raises(UsageError, match=line):
        parse_shard("slurm", _slurm(**values))


@pytest.mark.parametrize("lacking", list(SLURM))
def test_no_slurm_array_around_is_told(lacking: str) -> None:
    environment = _slurm()
    del environment[f"SLURM_ARRAY_TASK_{lacking}"]
    line = r"^--shard slurm: there is no SLURM job array around this process \(SLURM_ARRAY_TASK_ID"
    with pytest.raises(UsageError, match=line):
        parse_shard("slurm", environment)


@pytest.mark.parametrize("text", ["4/4", "0/0", "-1/4", "1", "1/", "a/b", "1/4/2", "", "1.0/4"])
def test_a_malformed_shard_is_wrong_usage(text: str) -> None:
    line = r'^--shard must be I/N with 0 <= I < N, or slurm, got ".*"\. For 4 processes: 0/4, 1/4, '
    with pytest.raises(UsageError, match=line):
        parse_shard(text)
