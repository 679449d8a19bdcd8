"""Names, places, and rows that are left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsltool.errors import BadImageError, StoreError, UsageError
from wsltool.stages.plan import output_for
from wsltool.stores.open import open_store

from .fake_stage import (
    Listener,
    die_at,
    ends_killed,
    fake,
)

both = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


# Places and names


@pytest.mark.parametrize("name", ["a\nb.zarr", "a\rb.zarr"])
def test_a_line_break_in_the_name_is_wrong_usage(source: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"^-o '.+': a line break cannot go through a pipe\.$"):
        fake(source, output=source.with_name(name))


def test_a_missing_folder_is_wrong_usage(source: Path) -> None:
    line = r"b\.zarr: the folder .*none does not exist\. Make it first: mkdir -p .*none$"
    with pytest.raises(UsageError, match=line):
        fake(source, output=source.parent / "none" / "b.zarr")


def test_a_name_without_a_container_is_wrong_usage_before_any_work(source: Path) -> None:
    done: list[int] = []
    with pytest.raises(
        UsageError, match=r'a store ends in \.zarr or \.h5, this name ends in "\.np'
    ):
        fake(source, output=source.with_name("b.npz"), done=done)
    assert done == []
    assert not source.with_name("b.npz.wip").exists()


def test_a_folder_that_cannot_be_written_is_one_line_with_the_cure(
    source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # a superuser may write anywhere but here
        folder = Path("/sys")
        if not folder.is_dir():
            pytest.skip("a superuser, and no /sys: no folder that cannot be written")
    line = (
        r"b\.zarr: its folder cannot be written \([A-Za-z -]+\)\. Pass -o with a name in another "
    )
    with pytest.raises(StoreError, match=line):
        fake(source, output=folder / "b.zarr")


def test_names_are_taken_as_they_are(source: Path) -> None:
    name = " a b'\"$;ü#.x.zarr"
    made = fake(source, output=source.with_name(name))
    assert made.name == name
    assert output_for(made, "boxes").name == " a b'\"$;ü#.x.boxes.zarr"


# Rows that are left out


def test_a_bad_row_stops_the_stage(source: Path) -> None:
    line = r'^in\.zarr row 9 "image 9": it is bad\. Pass --on-bad skip to leave it out\.$'
    with pytest.raises(BadImageError, match=line):
        fake(source, bad=(9,))


def test_a_bad_row_is_kept_empty_and_noted_and_passed_on(source: Path) -> None:
    listener = Listener()
    made = fake(source, bad=(9, 40), on_bad="skip", report=listener)
    assert listener.num_skipped == 2
    assert listener.lines == [
        'warning: in.zarr row 9 "image 9": it is bad. Left out.',
        'warning: in.zarr row 40 "image 40": it is bad. Left out.',
    ]
    with open_store(made) as store:
        assert np.flatnonzero(store.whole("image_status") == 1).tolist() == [9, 40]
        assert store.whole("image_note").tolist() == [
            "it is bad." * (n in (9, 40)) for n in range(50)
        ]
        assert store.meta["skipped"] == 2
        carried = store.carried(0, 50)
    assert np.flatnonzero(carried["image_status"] == 2).tolist() == [9, 40]
    assert (carried["image_status"] != 1).all()
    assert carried["image_note"].tolist()[9] == "it is bad."


def test_a_continued_run_reports_all_that_were_left_out(source: Path) -> None:
    ends_killed(fake, source, bad=(1, 40), on_bad="skip", on_block=die_at(3))
    for _ in range(2):  # continued, and then finished already
        listener = Listener()
        fake(source, bad=(1, 40), on_bad="skip", report=listener)
        assert listener.num_skipped == 2


def test_a_shard_reports_what_its_share_left_out_also_when_it_runs_again(source: Path) -> None:
    for _ in range(2):
        listener = Listener()
        fake(source, bad=(1, 9, 10), on_bad="skip", shard="1/2", report=listener)
        assert listener.num_skipped == 2
    listener = Listener()
    fake(source, bad=(1, 9, 10), on_bad="skip", shard="0/2", report=listener)
    assert listener.num_skipped == 3  # it packed, so it knows of all


# Limits


def test_a_limit_takes_the_first_rows_and_says_so(source: Path, whole: dict[str, Any]) -> None:
    with open_store(fake(source, limit=11)) as store:
        assert len(store) == 11
        assert store.meta["limit"] == {"how": "limit", "num_rows": 11, "of": 50}
        assert store.whole("image_id").tolist() == whole["image_id"][:11]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_wrong_usage(source: Path, limit: int) -> None:
    with pytest.raises(UsageError, match=rf"^--limit must be at least 1, got {limit}\.$"):
        fake(source, limit=limit)
