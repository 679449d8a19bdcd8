"""What the label page shows of stores, and where its answers go."""

from __future__ import annotations

import contextlib
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import (
    BadImageError,
    DatasetError,
    LineageError,
    ProtocolError,
    StoreCorruptError,
    StoreExistsError,
    UsageError,
)
from wsltool.localize.cluster_heat import cluster_heat
from wsltool.stages import label_board
from wsltool.stages.label_board import _Desk
from wsltool.stages.label_pictures import LabelBoard
from wsltool.stages.label_samples import sample_heat, sampled_rows
from wsltool.stores.labels import new_labels, read_labels, write_labels
from wsltool.stores.open import open_store
from wsltool.views.label_strips import PLACE_PX

from .cluster_scene import CELLS, VECTORS, scene_clusters
from .features_made import write_features
from .label_scene import pictured
from .making import Ears


@contextlib.contextmanager
def board_of(parts, *, features=None, images=None, samples=12, seed=0, report=None):
    with contextlib.ExitStack() as stack:
        clusters = stack.enter_context(open_store(parts))
        report = report or Ears()
        yield LabelBoard.open(stack, clusters, features, images, samples, seed, report)


@contextlib.contextmanager
def desk_of(parts):
    path = parts.with_name("parts.labels.json")
    with board_of(parts) as board:
        if not path.exists():
            write_labels(path, new_labels(board.clusters, path.parent, "person", {}))
        yield _Desk(board, path), path


def said(script):
    return json.loads(script.removeprefix("const BOARD = ").removesuffix(";\n"))


# ---------------------------------------------------------------- samples


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """4000 images of five classes; most of their cells fire."""
    folder = tmp_path_factory.mktemp("many")
    return write_features(folder / "f.h5", np.arange(4000) % 5, cells=4)


def test_samples_are_images_that_hold_patterns_of_the_class(many):
    with open_store(many) as features:
        drawn = sampled_rows(features, 12, 0)
        assert sorted(drawn) == [0, 1, 2, 3, 4]
        for index, rows in drawn.items():
            assert len(set(rows)) == len(rows) == 12
            for row in rows:
                where = features.pattern_rows(row, row + 1)
                assert index in features.rows("pattern_class", where.start, where.stop)


def test_samples_depend_on_the_seed_alone(many, monkeypatch):
    with open_store(many) as features:
        drawn = sampled_rows(features, 12, 7)
        monkeypatch.setattr("wsltool.stages.label_samples._READ_ROWS", 37)
        assert sampled_rows(features, 12, 7) == drawn
        fewer = sampled_rows(features, 5, 7)
        assert fewer == {index: rows[:5] for index, rows in drawn.items()}
        other = sampled_rows(features, 12, 8)
        assert all(set(other[index]) != set(rows) for index, rows in drawn.items())


def test_samples_are_spread_over_all_images(many):
    with open_store(many) as features:
        rows = np.concatenate([sampled_rows(features, 100, 2)[index] for index in range(5)])
    share_4 = np.bincount(rows // 1000, minlength=4) / len(rows)
    assert (np.abs(share_4 - 0.25) < 0.08).all()


def test_features_without_classes_are_refused(tmp_path):
    path = write_features(
        tmp_path / "f.zarr", np.zeros(2, int), pattern_cell=None, pattern_class=None
    )
    with (
        open_store(path) as features,
        pytest.raises(StoreCorruptError, match=r"^f\.zarr: has no pattern_class, so it does"),
    ):
        sampled_rows(features, 12, 0)


# ---------------------------------------------------------------- heat


def test_heat_is_eq_1_at_the_stored_cells(tmp_path):
    parts = pictured(tmp_path)
    with open_store(parts.with_name("found.zarr")) as features:
        found = sample_heat(features, 0, 0.8 * VECTORS[:3])
    assert found.size_wh == (40, 20)
    assert found.extent_xyxy == (0, 0, 40, 20)
    known = {(row, col): vector for row, col, vector, _ in CELLS["a"]}
    for row in range(2):
        for col in range(4):
            if (row, col) in known:
                expected = cluster_heat(3 * VECTORS[[known[row, col]]], 0.8 * VECTORS[:3])[0]
                np.testing.assert_allclose(found.heat_QHW[:, row, col], expected, atol=1e-6)
            else:
                assert np.isnan(found.heat_QHW[:, row, col]).all()


def test_a_pattern_of_zeros_has_heat_0_and_nan_is_refused(tmp_path):
    values = np.concatenate([np.zeros((12, 16)), np.full((12, 16), np.nan)])
    path = write_features(tmp_path / "f.zarr", np.zeros(2, int), feature=values.astype("float16"))
    with open_store(path) as features:
        assert (sample_heat(features, 0, np.ones((2, 16))).heat_QHW == 0).all()
        with pytest.raises(BadImageError, match=r"^features of 12 cells are not finite"):
            sample_heat(features, 1, np.ones((2, 16)))


def test_a_cell_outside_the_grid_is_refused(tmp_path):
    cell = np.full((12, 2), 3, np.int16)
    path = write_features(tmp_path / "f.zarr", np.zeros(1, int), cell=cell)
    with (
        open_store(path) as features,
        pytest.raises(BadImageError, match=r"^cell \[3, 3\] lies outside the grid of 3x4 ce"),
    ):
        sample_heat(features, 0, np.ones((2, 16)))


# ---------------------------------------------------------------- the board


def test_the_queue_is_in_the_order_of_the_second_eigenvalue(tmp_path):
    with board_of(pictured(tmp_path)) as board:
        assert [(one.class_name, one.eigenvalue, one.cluster_size) for one in board.queue] == [
            ("car", 0.25, (3, 2, 2)),
            ("dog", 0.5, (3, 3)),
            ("cat", 0.5, (1, 1)),
        ]
        shown = {one.class_name: {p.image_id for p in one.pictures} for one in board.queue}
        assert shown == {"car": {"a", "c"}, "dog": {"a", "b"}, "cat": {"d"}}
        assert board.queue[0].pictures[0].size_wh == (PLACE_PX, PLACE_PX // 2)
        assert list(board.strips(1)) == [
            "00001-photos.jpg", "00001-heat-1.png", "00001-heat-2.png",
        ]  # fmt: skip
        with Image.open(io.BytesIO(board.strips(0)["00000-heat-3.png"])) as strip:
            assert strip.size == (2 * PLACE_PX, PLACE_PX)


def test_pictures_are_made_once_and_few_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr("wsltool.stages.label_pictures._HELD_CLASSES", 2)
    with board_of(pictured(tmp_path)) as board:
        first = board.strips(0)
        assert board.strips(0) is first
        board.strips(1)
        board.strips(2)
        assert board.strips(0) is not first
        assert board.strips(0) == first


def test_a_damaged_picture_is_told_and_crossed_out(tmp_path):
    ears = Ears()
    with board_of(pictured(tmp_path, damaged=("c",)), report=ears) as board:
        assert ears.warnings == []
        assert len(board.strips(0)) == 4
        assert ears.warnings == ['found.zarr row 2 "c": PNG is truncated at byte 60.']
        assert board.num_bad == 1


def test_a_class_of_one_eigenvalue_has_none(tmp_path):
    parts = pictured(tmp_path)
    single = scene_clusters(
        tmp_path / "single.zarr", tmp_path / "found.zarr", eigenvalue=np.zeros((4, 1))
    )
    with board_of(single) as board:
        assert [one.eigenvalue for one in board.queue] == [None] * 3
    assert parts.exists()


def test_features_that_do_not_fit_are_refused(tmp_path):
    parts = pictured(tmp_path)
    other = write_features(tmp_path / "other.zarr", np.arange(4))
    with (
        pytest.raises(ProtocolError, match=r"^other\.zarr: features have 16 channels, the clus"),
        board_of(parts, features=other),
    ):
        pass
    other = write_features(tmp_path / "four.zarr", np.arange(4), channels=4)
    with (
        pytest.raises(ProtocolError, match=r"^four\.zarr: its classes are not those of parts\.z"),
        board_of(parts, features=other),
    ):
        pass
    (tmp_path / "found.zarr").rename(tmp_path / "moved.zarr")
    with (
        pytest.raises(LineageError, match=r"^parts\.zarr: its features .* Say where with --feat"),
        board_of(parts),
    ):
        pass


# ---------------------------------------------------------------- answers


def test_an_answer_is_on_disk_and_comes_back(tmp_path):
    parts = pictured(tmp_path)
    with desk_of(parts) as (desk, path):
        assert said(desk.script())["answers"] == {}
        told = desk.answer({"place": 1, "words": ["object", "unsure"], "seconds": 2.5})
        assert told["words"] == ("object", "unsure")
        (one,) = read_labels(path).classes
        assert (one.class_index, one.class_name, one.words) == (0, "dog", ("object", "unsure"))
        assert (one.seconds, one.answered) == (2.5, told["answered"])
        desk.answer({"place": 0, "words": ["object"] * 3, "seconds": 1})
        assert [one.class_name for one in read_labels(path).classes] == ["car", "dog"]
    with desk_of(parts) as (desk, path):
        board = said(desk.script())
        assert board["mode"] == "server"
        assert sorted(board["answers"]) == ["0", "1"]
        assert board["next_command"] == "wsltool refine MAPS --labels parts.labels.json"
        assert desk.answer({"place": 1, "words": None, "seconds": None}) == {}
        assert [one.class_name for one in read_labels(path).classes] == ["car"]


def test_pictures_go_by_their_names_alone(tmp_path):
    with desk_of(pictured(tmp_path)) as (desk, _):
        assert desk.picture("00000-photos.jpg").startswith(b"\xff\xd8")
        assert desk.picture("00000-heat-3.png").startswith(b"\x89PNG")
        for name in ("00000-heat-4.png", "00003-photos.jpg", "../truth.zarr", "0-photos.jpg", ""):
            assert desk.picture(name) is None


NO_ANSWERS = [
    ({"place": 3}, r"^place must be in \[0, 3\), got 3\.$"),
    ({"place": -1}, r"^place must be in \[0, 3\), got -1\.$"),
    ({"place": True}, r"^place must be in \[0, 3\), got True\.$"),
    ({"place": "1"}, r"^place must be in \[0, 3\), got '1'\.$"),
    ({"words": ["object"]}, r"^words must be 2 of object, distractor, unsure, got \['obj"),
    ({"words": ["object", "maybe"]}, r"^words must be 2 of object, distractor, unsure, got "),
    ({"words": [[], {}]}, r"^words must be 2 of object, distractor, unsure, got \[\[\], \{"),
    ({"words": "ob"}, r"^words must be 2 of object, distractor, unsure, got 'ob'\.$"),
    ({"seconds": -1}, r"^seconds must be in \[0, 86400\], got -1\.$"),
    ({"seconds": math.nan}, r"^seconds must be in \[0, 86400\], got nan\.$"),
    ({"seconds": None}, r"^seconds must be in \[0, 86400\], got None\.$"),
]


def test_an_answer_that_is_none_changes_nothing(tmp_path):
    good = {"place": 1, "words": ["object", "object"], "seconds": 1}
    with desk_of(pictured(tmp_path)) as (desk, path):
        before = path.read_bytes()
        for wrong in ([], None, {"place": 1}, good | {"more": 1}):
            with pytest.raises(UsageError, match=r"^an answer is place, words and seconds; got "):
                desk.answer(wrong)
        for change, message in NO_ANSWERS:
            with pytest.raises(UsageError, match=message):
                desk.answer(good | change)
        assert path.read_bytes() == before


def test_a_file_that_was_damaged_meanwhile_is_told(tmp_path):
    with desk_of(pictured(tmp_path)) as (desk, path):
        path.write_text("{")
        with pytest.raises(DatasetError, match=r"^parts\.labels\.json: is no JSON"):
            desk.answer({"place": 1, "words": ["object"] * 2, "seconds": 1})
        assert path.read_text() == "{"


def test_a_file_that_another_command_replaced_is_left_alone(tmp_path):
    parts = pictured(tmp_path)
    with desk_of(parts) as (desk, path), open_store(parts) as clusters:
        write_labels(path, new_labels(clusters, path.parent, "oracle boxes", {"id": "b"}))
        before = path.read_bytes()
        taken_back = {"place": 1, "words": None, "seconds": None}
        for call in (lambda: desk.answer(taken_back), desk.script):
            with pytest.raises(StoreExistsError, match=r"parts\.labels\.json: another command rep"):
                call()
        assert path.read_bytes() == before


def test_features_that_are_damaged_meanwhile_are_told(tmp_path):
    parts, ears = pictured(tmp_path), Ears()
    with board_of(parts, report=ears) as board:
        path = tmp_path / "a.json"
        write_labels(path, new_labels(board.clusters, path.parent, "person", {}))
        for file in (tmp_path / "found.zarr/feature/c").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-9] + bytes(9))
        assert _Desk(board, path).picture("00000-photos.jpg") is None
    (line,) = ears.warnings
    assert line.startswith("found.zarr: array feature, rows 0 to 6: ")


# ---------------------------------------------------------------- the page as files


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_the_page_as_files(tmp_path):
    parts, ears = pictured(tmp_path), Ears()
    with open_store(parts) as clusters:
        folder = label_board.export(clusters, tmp_path / "page", report=ears)
        assert ears.announced == [folder]
        first = files_of(folder)
        board = said(first["board.js"].decode())
        names = {f"pictures/{name}" for one in board["classes"] for name in one["files"]}
        assert len(names) == 10
        assert set(first) == names | {
            "index.html", "page.css", "answers.js", "drawing.js", "page.js", "board.js",
            "wsltool-view.json",
        }  # fmt: skip
        assert board["mode"] == "file"
        assert board["labels_head"]["clusters"]["path"] == "parts.zarr"
        assert board["next_command"] == "wsltool label parts.zarr --answers labels.json"
        label_board.export(clusters, folder)
        assert files_of(folder) == first
        with pytest.raises(StoreExistsError, match=r"page: a gallery is already there; .*--overwr"):
            label_board.export(clusters, folder, samples=1)
        label_board.export(clusters, folder, samples=1, overwrite=True)
        assert len(said((folder / "board.js").read_text())["classes"][0]["pictures"]) == 1


def test_a_page_with_bad_pictures_is_made_anew(tmp_path):
    parts = pictured(tmp_path, damaged=("a",))
    with open_store(parts) as clusters:
        for _ in range(2):
            ears = Ears()
            label_board.export(clusters, tmp_path / "page", report=ears)
            assert len(ears.warnings) == 2  # of car and of dog
