"""Inputs are found again, or refused if they have changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from wsltool.errors import LineageError
from wsltool.stores.lineage import (
    find_ancestor,
    find_input,
    fingerprint_file,
    fingerprint_store,
    same_fingerprint,
)
from wsltool.stores.open import open_store
from wsltool.stores.store import Store

from .examples import example_arrays, write_store

IMAGES = {"id": "a" * 32}


def _pair(folder: Path, record: dict[str, Any] | None = None) -> Store:
    """Return a maps store that records the images store ``in/a.zarr`` as its input."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    images = write_store(folder / "in" / "a.zarr", "images", example_arrays("images", 3), IMAGES)
    with open_store(images) as store:
        record = record or fingerprint_store(store, folder / "out")
    meta = {"inputs": {"images": record}}
    return open_store(write_store(folder / "out/b.h5", "maps", example_arrays("maps", 3), meta))


def test_an_input_is_recorded_by_relative_path_kind_id_and_digest(tmp_path: Path) -> None:
    record = _pair(tmp_path).meta["inputs"]["images"]
    assert record["path"] == "../in/a.zarr"
    assert (record["kind"], record["id"]) == ("images", "a" * 32)
    assert record["digest"].startswith("sha256:")


def test_it_is_found_at_the_recorded_path(tmp_path: Path) -> None:
    with _pair(tmp_path) as maps, find_input(maps, "images", "--truth") as images:
        assert images.path == tmp_path / "in" / "a.zarr"


def test_it_is_found_after_both_moved_together(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    _pair(tmp_path / "old").close()
    (tmp_path / "old").rename(tmp_path / "new")
    with (
        open_store(tmp_path / "new/out/b.h5") as maps,
        find_input(maps, "images", "--truth") as images,
    ):
        assert images.path == tmp_path / "new" / "in" / "a.zarr"


def test_it_is_found_from_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pair(tmp_path).close()
    monkeypatch.chdir(tmp_path / "out")
    with open_store("b.h5") as maps, find_input(maps, "images", "--truth") as images:
        assert images.path.resolve() == tmp_path / "in" / "a.zarr"


def test_it_is_found_beside_the_store(tmp_path: Path) -> None:
    with _pair(tmp_path) as maps:
        (tmp_path / "in" / "a.zarr").rename(tmp_path / "out" / "a.zarr")
        with find_input(maps, "images", "--truth") as images:
            assert images.path == tmp_path / "out" / "a.zarr"


def test_a_changed_one_is_refused_and_the_good_one_beside_the_store_taken(tmp_path: Path) -> None:
    with _pair(tmp_path) as maps:
        place = tmp_path / "in" / "a.zarr"
        place.rename(tmp_path / "out" / "a.zarr")
        write_store(place, "images", example_arrays("images", 4), {"id": "b" * 32})
        with find_input(maps, "images", "--truth") as images:
            assert images.path == tmp_path / "out" / "a.zarr"


def test_a_changed_one_is_refused(tmp_path: Path) -> None:
    with _pair(tmp_path) as maps:
        place = tmp_path / "in" / "a.zarr"
        shutil.rmtree(place)
        write_store(place, "images", example_arrays("images", 4), {"id": "b" * 32})
        line = (
            r"^b\.h5: its images \.\./in/a\.zarr is not there\. .*/in/a\.zarr is another store now "
            r"\(its id and digest differ\)\. Say where with --truth\.$"
        )
        with pytest.raises(LineageError, match=line):
            find_input(maps, "images", "--truth")


@pytest.mark.parametrize("what", ["gone", "damaged", "a file"])
def test_a_missing_one_names_the_option(tmp_path: Path, what: str) -> None:
    with _pair(tmp_path) as maps:
        place = tmp_path / "in" / "a.zarr"
        if what == "damaged":
            (place / "zarr.json").write_text("{")
        else:
            shutil.rmtree(place)
        if what == "a file":
            place.write_text("hello")
        line = r"^b\.h5: its images \.\./in/a\.zarr is not there\. Say where with --truth\.$"
        with pytest.raises(LineageError, match=line):
            find_input(maps, "images", "--truth")


def test_one_that_was_never_recorded_names_the_option(tmp_path: Path) -> None:
    path = write_store(tmp_path / "b.h5", "maps", example_arrays("maps", 3))
    line = r"^b\.h5: does not record what images it was made from\. Say where with --truth\.$"
    with open_store(path) as maps, pytest.raises(LineageError, match=line):
        find_input(maps, "images", "--truth")


def test_one_without_id_and_digest_is_known_by_its_arrays(tmp_path: Path) -> None:
    with _pair(tmp_path) as maps:
        place = tmp_path / "in" / "a.zarr"
        digest = maps.meta["inputs"]["images"]["digest"]
    with _pair_without_id(tmp_path / "x", digest) as maps, find_input(maps, "images", "-") as found:
        assert fingerprint_store(found, place.parent)["digest"] == digest


def _pair_without_id(folder: Path, digest: str) -> Store:
    folder.mkdir()
    return _pair(folder, {"path": "../in/a.zarr", "kind": "images", "digest": digest})


def test_an_ancestor_may_be_the_store_itself_which_stays_open(tmp_path: Path) -> None:
    with _pair(tmp_path) as maps:
        with find_ancestor(maps, "maps", "--truth") as found:
            assert found.path == maps.path
        assert maps.rows("image_size", 0, 3).shape == (3, 2)
        with find_ancestor(maps, "images", "--truth") as images:
            assert images.kind == "images"


def test_fingerprints_are_equal_by_id_or_by_digest_never_by_absence() -> None:
    assert same_fingerprint({"id": "1", "digest": "x"}, {"id": "1", "digest": "y"})
    assert same_fingerprint({"id": "1", "digest": "x"}, {"id": "2", "digest": "x"})
    assert not same_fingerprint({"id": "1"}, {"digest": "x"})
    assert not same_fingerprint({"path": "a"}, {"path": "a"})
    assert not same_fingerprint({"id": None}, {"id": None})


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "m.bin").write_bytes(data)
    assert fingerprint_file(tmp_path / "m.bin", tmp_path / "out", "model") == {
        "path": "../m.bin",
        "kind": "model",
        "digest": "sha256:" + hashlib.sha256(data).hexdigest(),
    }
