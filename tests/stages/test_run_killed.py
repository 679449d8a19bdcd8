"""Real commands, killed at any instant, interrupted, and side by side: always the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsltool.stores.schema import string_array
from wsltool.stores.wip import WorkInProgress

from ..cli.processes import Command
from ..stores.examples import example_arrays, write_store
from .fake_stage import contents

pytestmark = pytest.mark.slow

NUM_KILLS = 20
WAIT_S = 60.0


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps so large that a block has 32 rows: 5 blocks, nearly all zeros."""
    num = 160
    rng = np.random.default_rng(0)
    arrays = example_arrays("maps", num)
    arrays["image_id"] = string_array([f"image {n}" for n in range(num)])
    arrays["image_size"][:] = (40, 30)
    arrays["map_extent"][:] = (0, 0, 40, 30)
    arrays["map"] = np.zeros((num, 2, 390, 390), np.float16)
    for n in range(num):
        top, left = rng.integers(0, 250, 2)
        arrays["map"][n, :, top : top + rng.integers(40, 140), left : left + 99] = rng.uniform(0, 1)
    del arrays["suppressed"], arrays["map_grid"]
    return write_store(
        tmp_path_factory.mktemp("maps") / "in.zarr", "maps", arrays, {"id": "5" * 32}
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 small pictures in a store of their own: four blocks."""
    from PIL import Image

    import wsltool

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    for n in range(800):
        place = folder / "in" / "abc"[n % 3]
        place.mkdir(parents=True, exist_ok=True)
        picture_HWC = rng.integers(0, 256, (10, 8 + n % 9, 3)).astype(np.uint8)
        Image.fromarray(picture_HWC).save(place / f"{n}.png")
    return wsltool.ingest_folder(folder / "in", output=folder / "in.zarr", embed=True)


def _boxes(folder: Path, maps: Path, *more: str) -> Command:
    return Command(folder, "boxes", str(maps), "-o", "out.zarr", "--components", "all", *more)


def _cam(folder: Path, images: Path, *more: str) -> Command:
    model = ("--model", "tests.cli.networks:small", "--classes", "all", "--workers", "1")
    return Command(folder, "cam", str(images), "-o", "out.zarr", *model, *more)


def _state(output: Path) -> str:
    """Return in a word how far a run has come."""
    work = WorkInProgress(output)
    if output.exists():
        return "published"
    if not work.folder.exists():
        return "before its claim"
    if list(work.folder.glob(".tmp-pack-*")):
        return "packing"
    return "computing"


def _kill_while_packing(command: Command, output: Path, rng: random.Random) -> None:
    """Wait until the command packs, and a random moment more."""
    while command.runs and _state(output) != "packing":
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.03))


def _kill_twenty_times(start: Any, folder: Path, expected: dict[str, Any]) -> Counter[str]:
    """Kill runs at random instants and start them again until 20 were killed; compare each end."""
    output, rng, killed = folder / "out.zarr", random.Random(3), Counter[str]()
    for _ in range(2):  # the first may have to warm the process that forks
        began = time.monotonic()
        assert start().wait() == 0
        life_s = time.monotonic() - began
        shutil.rmtree(output)
    while killed.total() < NUM_KILLS:
        command = start()
        if killed["packing"] < 3 and killed.total() % 4 == 3:
            _kill_while_packing(command, output, rng)
        else:
            time.sleep(rng.uniform(0, life_s))
        if command.kill():
            killed[_state(output)] += 1
        else:
            assert contents(output) == expected
            shutil.rmtree(output)
    assert start().wait() == 0
    assert contents(output) == expected
    assert not WorkInProgress(output).folder.exists()
    return killed


@pytest.fixture(scope="module")
def good_boxes(tmp_path_factory: pytest.TempPathFactory, maps: Path) -> dict[str, Any]:
    """What one uninterrupted run of `boxes` makes."""
    folder = tmp_path_factory.mktemp("good_boxes")
    assert _boxes(folder, maps).wait() == 0
    return contents(folder / "out.zarr")


@pytest.fixture(scope="module")
def good_maps(tmp_path_factory: pytest.TempPathFactory, images: Path) -> dict[str, Any]:
    """What one uninterrupted run of `cam` makes."""
    folder = tmp_path_factory.mktemp("good_maps")
    command = _cam(folder, images)
    assert command.wait() == 0, command.stderr
    return contents(folder / "out.zarr")


def test_boxes_killed_twenty_times_gives_the_same_bytes(
    tmp_path: Path, maps: Path, good_boxes: dict[str, Any]
) -> None:
    killed = _kill_twenty_times(lambda: _boxes(tmp_path, maps), tmp_path, good_boxes)
    assert killed["computing"] + killed["packing"] >= 5, killed


def test_cam_killed_twenty_times_gives_the_same_bytes(
    tmp_path: Path, images: Path, good_maps: dict[str, Any]
) -> None:
    killed = _kill_twenty_times(lambda: _cam(tmp_path, images), tmp_path, good_maps)
    assert killed["computing"] + killed["packing"] >= 5, killed


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_four_shards_at_once_give_the_same_bytes(
    tmp_path: Path, maps: Path, good_boxes: dict[str, Any], suffix: str
) -> None:
    more = ("--components", "all", "-o", f"out{suffix}", "--shard")
    commands = [Command(tmp_path, "boxes", str(maps), *more, f"{n}/4") for n in range(4)]
    assert [command.wait() for command in commands] == [0] * 4
    assert {command.stdout for command in commands} == {f"out{suffix}\n"}
    assert contents(tmp_path / f"out{suffix}") == good_boxes
    assert not WorkInProgress(tmp_path / f"out{suffix}").folder.exists()


def _wait_for_parts(output: Path, num: int) -> None:
    end = time.monotonic() + WAIT_S
    while len(list(WorkInProgress(output).folder.glob("part-*"))) < num:
        assert time.monotonic() < end, "no part appears"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [("boxes", signal.SIGTERM, 143), ("boxes", signal.SIGINT, 130), ("cam", signal.SIGINT, 130)],
)
def test_a_signal_drops_the_block_in_flight_and_the_same_command_continues(
    tmp_path: Path, request: pytest.FixtureRequest, stage: str, number: int, code: int
) -> None:
    start, source, good = {
        "boxes": (_boxes, "maps", "good_boxes"),
        "cam": (_cam, "images", "good_maps"),
    }[stage]
    path, expected = request.getfixturevalue(source), request.getfixturevalue(good)
    command = start(tmp_path, path)
    _wait_for_parts(tmp_path / "out.zarr", 2)
    command.signal(number)
    assert command.wait() == code
    assert command.stdout == "out.zarr\n"
    line = "wsltool: interrupted; the same command continues where this one stopped."
    assert command.stderr.splitlines() == [line]
    names = [file.name for file in WorkInProgress(tmp_path / "out.zarr").folder.iterdir()]
    assert all(name.startswith(("part-", "plan.json")) for name in names), names
    time.sleep(0.1)
    assert len(names) == len(list(WorkInProgress(tmp_path / "out.zarr").folder.iterdir()))
    assert start(tmp_path, path).wait() == 0
    assert contents(tmp_path / "out.zarr") == expected


def test_a_signal_at_any_instant_ends_it_with_one_line_and_its_code(
    tmp_path: Path, maps: Path, good_boxes: dict[str, Any]
) -> None:
    rng, codes = random.Random(8), Counter[int]()
    for _ in range(14):
        command = _boxes(tmp_path, maps)
        while not command._said[1].exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0.01, 0.7))
        for _ in range(rng.choice([1, 1, 2])):
            if command.runs:
                command.signal(signal.SIGTERM)
                time.sleep(rng.uniform(0, 0.004))
        codes[command.wait()] += 1
        assert "Traceback" not in command.stderr
        if (tmp_path / "out.zarr").exists():
            assert contents(tmp_path / "out.zarr") == good_boxes
            shutil.rmtree(tmp_path / "out.zarr")
    assert set(codes) <= {0, 143, -15}, codes  # -15 before Python has come to our code
    assert codes[143] >= 3, codes
