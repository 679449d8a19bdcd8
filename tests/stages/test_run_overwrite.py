"""What happens where something stands already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsltool.errors import StoreExistsError, UsageError
from wsltool.stores.open import open_store
from wsltool.stores.wip import WorkInProgress

from .fake_stage import (
    NUM_BLOCKS,
    Listener,
    contents,
    die_at,
    ends_killed,
    fake,
    write_images,
)

both = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


# Something else stands there


def _refused(match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(StoreExistsError, match=match + r"\. Pass -o for another name, or --overwr"):
        fake(*args, **options)


DIFFERENCES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"factor": 3.0}, "made with --factor 2.0, now 3.0"),
    ({}, {"flag": "x"}, "made with --flag unset, now x"),
    ({"flag": "x"}, {}, "made with --flag x, now unset"),
    ({}, {"revision": 2}, "made with revision 1, now 2"),
    ({}, {"limit": 9}, "made from all rows, now 9 of 50 rows"),
    ({"limit": 9}, {}, "made from 9 of 50 rows, now all rows"),
    ({"limit": 9}, {"limit": 10}, "made from 9 of 50 rows, now 10 of 50 rows"),
    ({"flag": "x"}, {"limit": 9}, "made from all rows, now 9 of 50 rows"),  # rows may set params
]
differences = pytest.mark.parametrize(("old", "new", "difference"), DIFFERENCES)


@differences
def test_a_finished_output_that_differs_is_refused_with_the_difference(
    source: Path, old: dict[str, Any], new: dict[str, Any], difference: str
) -> None:
    before = contents(fake(source, **old))
    _refused(rf"in\.fake\.zarr: {difference}", source, **new)
    assert contents(source.with_name("in.fake.zarr")) == before


@differences
def test_an_unfinished_output_that_differs_is_refused_with_the_difference(
    source: Path, old: dict[str, Any], new: dict[str, Any], difference: str
) -> None:
    ends_killed(fake, source, **old, on_block=die_at(1))
    done: list[int] = []
    _refused(rf"in\.fake\.zarr\.wip: {difference}", source, **new)
    fake(source, **old, done=done)
    assert 0 not in done


def test_another_input_is_refused(source: Path, tmp_path: Path) -> None:
    fake(source, output=tmp_path / "b.zarr")
    other = write_images(tmp_path / "other.zarr", 51, store_id="2" * 32)
    _refused(
        r"b\.zarr: made from another images than other\.zarr is now",
        other,
        output=tmp_path / "b.zarr",
    )


def test_an_equal_input_under_another_name_is_the_same_input(source: Path, tmp_path: Path) -> None:
    fake(source, output=tmp_path / "b.zarr")
    copy = write_images(tmp_path / "copy.h5")
    done: list[int] = []
    fake(copy, output=tmp_path / "b.zarr", done=done)
    assert done == []


def test_the_output_of_another_stage_is_refused(source: Path) -> None:
    _refused(
        r"in\.zarr: made with stage ingest, now fake",
        write_images(source.with_name("c.zarr"), store_id="3" * 32),
        output=source,
    )


def test_a_limit_of_all_rows_is_no_limit(source: Path) -> None:
    fake(source, limit=50)
    fake(source)
    fake(source, limit=1000)


def test_what_does_not_decide_the_result_may_differ(source: Path) -> None:
    fake(source)
    done: list[int] = []
    fake(source, done=done, shard="0/2", on_bad="skip", overwrite=True)
    assert done == []


# --overwrite


@both
def test_overwrite_replaces_what_differs(source: Path, suffix: str) -> None:
    output = source.with_name(f"b{suffix}")
    fake(source, output=output)
    fake(source, output=output, factor=3.0, overwrite=True)
    with open_store(output) as store:
        assert store.meta["params"]["factor"] == 3.0
    assert sorted(file.name for file in source.parent.glob(".*")) == []


@both
def test_what_is_replaced_is_gone_before_the_new_name_is_told(source: Path, suffix: str) -> None:
    output, there = source.with_name(f"b{suffix}"), []

    class Looks(Listener):
        def announce(self, path: Path) -> None:
            there.append(path.exists())

    fake(source, output=output)
    fake(source, output=output, factor=3.0, overwrite=True, report=Looks())
    assert there == [False]


def test_overwrite_leaves_an_equal_output_alone(source: Path) -> None:
    made = fake(source)
    with open_store(made) as store:
        first = store.meta["id"]
    done: list[int] = []
    fake(source, overwrite=True, done=done)
    with open_store(made) as store:
        assert (store.meta["id"], done) == (first, [])


def test_overwrite_replaces_work_of_another_plan(source: Path) -> None:
    ends_killed(fake, source, on_block=die_at(3))
    done: list[int] = []
    made = fake(source, factor=3.0, overwrite=True, done=done)
    assert done == list(range(NUM_BLOCKS))
    assert contents(made) == contents(fake(source, factor=3.0, output=source.with_name("c.zarr")))


def test_an_overwrite_that_was_killed_continues_when_it_is_requeued(source: Path) -> None:
    fake(source)
    ends_killed(fake, source, factor=3.0, overwrite=True, on_block=die_at(4))
    done: list[int] = []
    made = fake(source, factor=3.0, overwrite=True, done=done)
    assert done == [4, 5, 6]
    assert contents(made) == contents(fake(source, factor=3.0, output=source.with_name("c.zarr")))


def test_overwrite_in_shards_replaces_once(source: Path) -> None:
    fake(source)
    done: list[int] = []
    for index in range(3):
        fake(source, factor=3.0, overwrite=True, shard=f"{index}/3", done=done)
    assert sorted(done) == list(range(NUM_BLOCKS))
    assert contents(source.with_name("in.fake.zarr"))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "what", ["folder", "empty folder", "file", "foreign zarr", "dangling link"]
)
def test_strangers_are_never_touched(source: Path, what: str, overwrite: bool) -> None:
    output = source.with_name("b.zarr")
    if what == "file":
        output.write_text("mine")
    elif what == "dangling link":
        output.symlink_to("nowhere")
    else:
        output.mkdir()
        if what != "empty folder":
            (output / "zarr.json" if what == "foreign zarr" else output / "x").write_text(
                '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
            )
    before = _look(output)
    line = (
        r"b\.zarr: something stands there that wsltool did not make \(.+\) It is left alone, also "
        r"with --overwrite\. Pass -o with another name\.$"
    )
    with pytest.raises(StoreExistsError, match=line):
        fake(source, output=output, overwrite=overwrite)
    assert _look(output) == before
    assert not WorkInProgress(output).folder.exists()


def _look(path: Path) -> Any:
    if path.is_symlink():
        return path.readlink()
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    return path.read_bytes()


def test_a_link_to_a_store_is_read_but_not_replaced(source: Path) -> None:
    made, link = fake(source), source.with_name("link.zarr")
    before = contents(made)
    link.symlink_to(made.name)
    done: list[int] = []
    fake(source, output=link, done=done)
    assert done == []
    line = r"link\.zarr: is a symbolic link, which --overwrite does not follow\. Remove the link or"
    with pytest.raises(StoreExistsError, match=line):
        fake(source, output=link, factor=3.0, overwrite=True)
    assert link.is_symlink()
    assert contents(made) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_strangers_work_folder_is_never_touched(source: Path, overwrite: bool) -> None:
    folder = source.with_name("in.fake.zarr.wip")
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    line = (
        r"\.wip: holds a file that was not made by wsltool \(thesis\.txt\)\. Move it away or pass"
    )
    with pytest.raises(StoreExistsError, match=line):
        fake(source, overwrite=overwrite)
    assert _look(folder) == {"thesis.txt": b"mine"}


def test_overwrite_keeps_a_strangers_file_in_our_work_folder(source: Path) -> None:
    ends_killed(fake, source, on_block=die_at(3))
    folder = source.with_name("in.fake.zarr.wip")
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(StoreExistsError, match=r"not made by wsltool \(thesis\.txt\)"):
        fake(source, factor=3.0, overwrite=True)
    fake(source)
    assert _look(folder) == {"thesis.txt": b"mine"}


def test_an_output_that_is_its_own_input_is_refused(source: Path) -> None:
    before = contents(source)
    line = r"in\.zarr: that is the images it reads\. Give another name\.$"
    with pytest.raises(UsageError, match=line):
        fake(
            source,
            output=source.parent / ".." / source.parent.name / "in.zarr",
            overwrite=True,
        )
    assert contents(source) == before
