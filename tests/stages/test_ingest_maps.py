"""Maps of other tools become a maps store: exact values, classes, scores, bad files."""

from __future__ import annotations

import io
import json
import os
import pickle

import numpy as np
import pytest

from wsltool.errors import BadImageError, DatasetError, StoreExistsError, UsageError
from wsltool.stages.ingest_maps import ingest_maps
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, write_images

CLASSES = ["cat", "dog", "train"]
SHOWS = {"a/x.jpg": {0: 1}, "a/y.jpg": {1: 1, 2: 1, 0: 255}, "b/z.jpg": {2: 1}}


@pytest.fixture
def images(tmp_path):
    shown = {name: {"labels": labels} for name, labels in SHOWS.items()}
    return write_images(tmp_path / "val.zarr", shown, CLASSES, boxes=False)


def put(folder, maps):
    for name, values in maps.items():
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A file an image: one map, two, one."""
    rng = np.random.default_rng(0)
    sizes = {"a/x.jpg": (4, 5), "a/y.jpg": (2, 4, 5), "b/z.jpg": (1, 4, 5)}
    return put(tmp_path / "theirs", {name: rng.normal(size=size) for name, size in sizes.items()})


def attributes(path):
    with open_store(path) as store:
        return store.attributes


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_array_by_array(folder, images, tmp_path, suffix):
    ears = Ears()
    output = tmp_path / f"out{suffix}"
    assert ingest_maps(folder, images=images, output=output, report=ears) == output
    found, values = arrays(output), {name: np.load(folder / f"{name}.npy") for name in SHOWS}
    assert found["image_id"].tolist() == list(SHOWS)
    assert found["map"].dtype == np.float64
    assert found["map"].shape == (3, 2, 4, 5)
    largest = values["a/y.jpg"].max(axis=(1, 2))
    best, other = np.argsort(-largest)
    np.testing.assert_array_equal(found["map"][0, 0], values["a/x.jpg"])
    np.testing.assert_array_equal(found["map"][1], values["a/y.jpg"][[best, other]])
    assert found["map_class"].tolist() == [[0, -1], [1 + best, 1 + other], [2, -1]]
    np.testing.assert_array_equal(found["map_score"][1], largest[[best, other]].astype(np.float32))
    assert found["map_score"][0, 1] == -np.inf
    assert found["map_extent"].tolist() == [[0, 0, 20, 10]] * 3
    assert "map_grid" not in found
    score = np.full((3, 3), -np.inf, np.float32)
    score[0, 0], score[1, 1:] = values["a/x.jpg"].max(), largest
    score[2, 2] = values["b/z.jpg"].max()
    np.testing.assert_array_equal(found["class_score"], score)
    assert verify(output)["problems"] == []
    assert ears.warnings == []
    assert attributes(output)["classes"] == "present"
    assert attributes(output)["score_kind"] == "unknown"
    assert set(meta(output)["inputs"]) == {"images", "listing"}


def test_default_name_and_the_same_again(folder, images):
    output = ingest_maps(folder, images=images)
    assert output == folder.with_name("theirs.maps.zarr")
    ears = Ears()
    ingest_maps(folder, images=images, report=ears)
    assert ears.notes == [f"{output}: finished already, left alone."]
    state = (folder / "a/x.jpg.npy").stat()
    os.utime(folder / "a/x.jpg.npy", ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
    with pytest.raises(StoreExistsError, match=r"made from another listing than theirs is now\."):
        ingest_maps(folder, images=images)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("float16", "float32"),
        ("float32", "float32"),
        (">f4", "float32"),
        ("uint8", "float32"),
        ("int16", "float32"),
        ("bool", "float32"),
        ("float64", "float64"),
        ("int32", "float64"),
        ("int64", "float64"),
    ],
)
def test_every_width_is_kept_exactly(tmp_path, images, dtype, stored):
    values = np.asfortranarray(np.arange(20).reshape(4, 5) % 2 + 1).astype(dtype)
    folder = put(tmp_path / "t", {"a/x": values, "a/y": values[None].repeat(2, 0), "b/z": values})
    found = arrays(ingest_maps(folder, images=images))
    assert found["map"].dtype == stored
    np.testing.assert_array_equal(found["map"][0, 0], values.astype(stored))


def test_float64_maps_quantise_as_the_evaluator_quantises_them(tmp_path, images):
    """``floor(255 s)`` of values one step below k/255: in float32 they would be k."""
    below = np.nextafter(np.arange(1, 256) / 255, 0)[None]
    below = np.where(np.floor(below * 255) == np.arange(1, 256), np.nextafter(below, 0), below)
    level = np.floor(below * 255)
    assert (np.floor(below.astype(np.float32).astype(np.float64) * 255) != level).any()
    folder = put(tmp_path / "t", {"a/x": below, "a/y": np.stack([below] * 2), "b/z": below})
    found = arrays(ingest_maps(folder, images=images))
    np.testing.assert_array_equal(np.floor(found["map"][0, 0] * 255), level)


def test_sizes_that_differ_are_told_apart(tmp_path, images):
    maps = {"a/x": np.ones((2, 7)), "a/y": np.ones((2, 3, 3)), "b/z": np.ones((5, 1))}
    folder = put(tmp_path / "t", maps)
    output = ingest_maps(folder, images=images, map_dtype="float16")
    found = arrays(output)
    assert found["map"].shape == (3, 2, 5, 7)
    assert found["map"].dtype == np.float16
    assert found["map_grid"].tolist() == [[2, 7], [3, 3], [5, 1]]
    assert found["map"][0, 0].sum() == 14
    assert verify(output)["problems"] == []


class TestClasses:
    def test_all_of_them_with_class_scores(self, tmp_path, images):
        rng = np.random.default_rng(1)
        maps = {name: rng.random((3, 2, 2), np.float32) for name in SHOWS}
        score = rng.normal(size=(3, 3))
        np.save(tmp_path / "score.npy", score)
        output = ingest_maps(
            put(tmp_path / "t", maps),
            images=images,
            classes="all",
            class_score=tmp_path / "score.npy",
            score_kind="logit",
        )
        found = arrays(output)
        order = np.argsort(-score.astype(np.float32), axis=1)
        np.testing.assert_array_equal(found["map_class"], order)
        np.testing.assert_array_equal(found["class_score"], score.astype(np.float32))
        for row, name in enumerate(SHOWS):
            np.testing.assert_array_equal(found["map"][row], maps[name][order[row]])
        assert attributes(output)["classes"] == "all"
        assert attributes(output)["score_kind"] == "logit"

    def test_scores_of_a_csv(self, tmp_path, images):
        lines = [
            "image,train,cat,dog",
            "b/z.jpg,1,-inf,3",
            "x,.5,1e-3,2",
            "elsewhere,1,1,1",
            "y,9,8,7",
        ]
        (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
        maps = {name: np.ones((3, 1, 1)) for name in SHOWS}
        maps["b/z.jpg"] = np.ones((3, 1, 1))
        folder = put(tmp_path / "t", maps)
        with pytest.raises(
            BadImageError,
            match=r'^val\.zarr row 2 "b/z\.jpg": z\.jpg\.npy: a map has the class score -inf, '
            r"expected a finite number\. Pass --on-bad skip to leave it out\.$",
        ):
            ingest_maps(folder, images=images, classes="all", class_score=tmp_path / "s.csv")
        (tmp_path / "s.csv").write_text("\n".join(lines).replace("-inf", "-1") + "\n")
        output = ingest_maps(
            folder,
            images=images,
            classes="all",
            class_score=tmp_path / "s.csv",
            output=tmp_path / "good.zarr",
        )
        expected = np.array([[1e-3, 2, 0.5], [8, 7, 9], [-1, 3, 1]], np.float32)
        np.testing.assert_array_equal(arrays(output)["class_score"], expected)

    def test_one_class_for_all_images(self, tmp_path, images):
        folder = put(tmp_path / "t", {name: np.ones((1, 1)) for name in SHOWS})
        output = ingest_maps(folder, images=images, classes="id dog")
        assert arrays(output)["map_class"].tolist() == [[1]] * 3
        assert attributes(output)["classes"] == "given"

    def test_a_listing(self, folder, images, tmp_path):
        told = {
            "classes": "top1",
            "images": {
                "a/x.jpg": {"label": ["dog"], "score": [0.5], "extent": [1, 2, 3, 4]},
                "y": {"label": ["train", "id cat"]},
                "b/z.jpg": {"label": ["cat"]},
                "unknown": {"label": ["whale"]},
            },
        }
        path = tmp_path / "maps.json"
        path.write_text(json.dumps(told))
        output = ingest_maps(folder, images=images, classes=str(path))
        found = arrays(output)
        assert found["map_class"][0].tolist() == [1, -1]
        assert sorted(found["map_class"][1].tolist()) == [0, 2]
        assert found["map_score"][0, 0] == found["class_score"][0, 1] == 0.5
        assert found["map_extent"][0].tolist() == [1, 2, 3, 4]
        assert attributes(output)["classes"] == "top1"
        assert meta(output)["inputs"]["classes"]["kind"] == "file"

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ("{", r"m\.json: no valid JSON, Expecting property name"),
            ("[]", r'm\.json: no "images" in it; expected an object by image id\.$'),
            ({"images": {"y": {}}}, r'image "y": no list "label"; expected a class for every map'),
            ({"images": {"y": {"label": ["cow"]}}}, r'image "y": label "cow" is none of the 3 cl'),
            ({"images": {"y": {"label": ["cat", "cat"]}}}, r'"y": a class stands twice in \['),
            (
                {"images": {"y": {"label": ["cat"], "score": [1, 2]}}},
                r'"y": score is \[1, 2\], expected 1 finite numbers\.$',
            ),
            (
                {"images": {"y": {"label": ["cat"], "score": [float("nan")]}}},
                r'"y": score is \[nan\], expected 1 finite numbers\.$',
            ),
            (
                {"images": {"y": {"label": [], "extent": [0, 0, 0, 1]}}},
                r'"y": extent \[0, 0, 0, 1\] is empty; expected x0 y0 x1 y1\.$',
            ),
            ({"images": {}, "classes": 5}, r'm\.json: "classes" is 5, expected text\.$'),
        ],
    )
    def test_bad_listings(self, folder, images, tmp_path, told, message):
        path = tmp_path / "m.json"
        path.write_text(told if isinstance(told, str) else json.dumps(told))
        with pytest.raises(DatasetError, match=message):
            ingest_maps(folder, images=images, classes=str(path))

    def test_another_number_of_maps(self, folder, images):
        with pytest.raises(
            BadImageError,
            match=r'^val\.zarr row 0 "a/x\.jpg": x\.jpg\.npy: holds 1 maps, but its image needs '
            r"all of 3 classes \(cat, dog, train\)\. Pass --on-bad skip",
        ):
            ingest_maps(folder, images=images, classes="all")

    def test_an_unknown_class(self, folder, images):
        with pytest.raises(
            UsageError,
            match=r'^--classes must be present, all, a listing \(\.json\) or a class, but "cow" is',
        ):
            ingest_maps(folder, images=images, classes="cow")


def saved(values, **more):
    file = io.BytesIO()
    np.save(file, values, **more)
    return file.getvalue()


BAD_FILES = [
    (b"", r"x\.jpg\.npy: no \.npy file \("),
    (b"\x93NUMPY\x09\x00", r"x\.jpg\.npy: no \.npy file \("),
    (pickle.dumps([1, 2]), r"x\.jpg\.npy: no \.npy file \("),
    (
        saved(np.array([{}], dtype=object), allow_pickle=True),
        r"x\.jpg\.npy: holds pickled Python objects, which are never read: they may run any code\.",
    ),
    (
        saved(np.ones((2, 2), complex)),
        r"holds complex128, expected real numbers of at most 64 bits",
    ),
    (saved(np.array([["a"]])), r"holds <U1, expected real numbers of at most 64 bits\."),
    (saved(np.ones(3)), r"has shape \(3,\), expected \(rows, columns\) or \(maps, rows, columns\)"),
    (saved(np.ones((1, 2, 3, 4))), r"has shape \(1, 2, 3, 4\), expected \(rows, columns\) or"),
    (saved(np.ones((0, 4))), r"has shape \(0, 4\), expected .* with at least one cell\."),
    (saved(np.array([[0, np.nan]])), r"holds nan in map 0, row 0, column 1; expected finite"),
    (saved(np.array([[[0.0], [-np.inf]]])), r"holds -inf in map 0, row 1, column 0; expected fin"),
    (saved(np.ones((4, 4)))[:-8], r"x\.jpg\.npy: cannot be read \("),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_bad_files(folder, images, content, message):
    (folder / "a/x.jpg.npy").write_bytes(content)
    with pytest.raises(BadImageError, match=r'^val\.zarr row 0 "a/x\.jpg": .*' + message):
        ingest_maps(folder, images=images)
    output = ingest_maps(folder, images=images, on_bad="skip", report=(ears := Ears()))
    found = arrays(output)
    assert found["image_status"].tolist() == [1, 0, 0]
    assert found["map_class"][0].tolist() == [-1, -1]
    assert found["class_score"][0].tolist() == [-np.inf] * 3
    assert ears.num_skipped == 1
    assert verify(output)["problems"] == []


def test_a_missing_file_and_strangers(folder, images):
    (folder / "b/z.jpg.npy").rename(folder / "b/zz.jpg.npy")
    ears = Ears()
    with pytest.raises(
        BadImageError,
        match=r'^val\.zarr row 2 "b/z\.jpg": there is no file of it in .*theirs; expected its id '
        r"and \.npy\. Pass --on-bad skip to leave it out\.$",
    ):
        ingest_maps(folder, images=images, report=ears)
    assert ears.warnings == [
        f"{folder}: files that belong to no image: 1, the first is b/zz.jpg.npy. Not read."
    ]
    found = arrays(ingest_maps(folder, images=images, on_bad="skip"))
    assert found["image_status"].tolist() == [0, 0, 1]
    assert found["image_note"][2].startswith("there is no file of it in")


def test_values_that_the_dtype_cannot_hold(tmp_path, images):
    folder = put(tmp_path / "t", {"a/x": [[1e300]], "a/y": np.ones((2, 1, 1)), "b/z": [[1.0]]})
    with pytest.raises(
        BadImageError,
        match=r"x\.npy: holds 1e\+300, float32 holds numbers up to 3\.40282e\+38\. Pass a wider",
    ):
        ingest_maps(folder, images=images, map_dtype="float32")
    with pytest.raises(BadImageError, match=r"x\.npy: a map has the class score inf, expected a"):
        ingest_maps(folder, images=images, output=tmp_path / "wide.zarr")


def test_an_image_that_shows_nothing_needs_no_file(tmp_path):
    images = write_images(tmp_path / "i.zarr", {"a": {"labels": {0: 1}}, "b": {}}, CLASSES)
    folder = put(tmp_path / "t", {"a": np.ones((2, 2))})
    found = arrays(ingest_maps(folder, images=images))
    assert found["image_status"].tolist() == [0, 0]
    assert found["map_class"].tolist() == [[0], [-1]]


def test_images_that_were_skipped_stay_empty(tmp_path):
    images = write_images(
        tmp_path / "i.zarr", {"a": {"labels": {0: 1}}, "b": {"status": 1, "size": (0, 0)}}, CLASSES
    )
    folder = put(tmp_path / "t", {"a": np.ones((2, 2))})
    assert arrays(ingest_maps(folder, images=images))["image_status"].tolist() == [0, 2]


def test_folders_that_cannot_be(tmp_path, images):
    with pytest.raises(UsageError, match=r"nowhere: there is no such folder\. Give the folder of"):
        ingest_maps(tmp_path / "nowhere", images=images)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no \.npy file in it; expected one an image\.$"):
        ingest_maps(tmp_path / "empty", images=images)
    folder = put(tmp_path / "t", {"q": [[1.0]]})
    with pytest.raises(
        DatasetError, match=r"t: none of the 1 files belongs to an image \(q\.npy, …\); expected"
    ):
        ingest_maps(folder, images=images)
    folder = put(tmp_path / "u", {"a/x": [[1.0]], "x.jpg": [[1.0]]})
    with pytest.raises(DatasetError, match=r"u: image 0 has two files \(x\.jpg\.npy, a/x\.npy\)"):
        ingest_maps(folder, images=images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(np.ones((2, 3))), r"has shape \(2, 3\), expected \(3, 3\): a row for each image"),
        (
            saved(np.array([None]), allow_pickle=True),
            r"no \.npy file of plain numbers \(Object arr",
        ),
        (
            saved(np.full((3, 3), np.nan)),
            r'score of class "cat" in image 0 is nan, expected a numb',
        ),
        (saved(np.full((3, 3), 1e300)), r'score of class "cat" in image 0 is inf, expected a numb'),
    ],
)
def test_bad_class_scores(folder, images, tmp_path, content, message):
    (tmp_path / "s.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=r"s\.npy: .*" + message):
        ingest_maps(folder, images=images, class_score=tmp_path / "s.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,cat,dog\n",
            r"s\.csv line 1: the header has 2 classes; expected image and all 3 cl",
        ),
        (
            "image,cat,dog,cow\n",
            r's\.csv line 1: class "cow" is none of the 3 classes of val\.zarr',
        ),
        ("image,cat,dog,train\nx,1,2\n", r'line 2: image "x" has 3 fields, expected 4\.$'),
        ("image,cat,dog,train\nx,1,2,3\nx,1,2,3\n", r's\.csv line 3: image "x" again\.$'),
        ("image,cat,dog,train\nx,1,2,nan\n", r's\.csv line 2: score "nan", expected a number\.$'),
    ],
)
def test_bad_csv_of_class_scores(folder, images, tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        ingest_maps(folder, images=images, class_score=tmp_path / "s.csv")


def test_shards_and_limits_make_the_same_store(tmp_path):
    names = [f"c/{n:03}" for n in range(300)]
    images = write_images(tmp_path / "i.zarr", {n: {"labels": {0: 1}} for n in names}, CLASSES)
    rng = np.random.default_rng(2)
    folder = put(tmp_path / "t", {n: rng.random((1 + k % 3, 2)) for k, n in enumerate(names)})
    whole = ingest_maps(folder, images=images)
    shared = tmp_path / "shared.h5"
    for shard in ("1/2", "0/2"):
        ingest_maps(folder, images=images, output=shared, shard=shard)
    assert meta(whole)["digest"] == meta(shared)["digest"]
    assert_equal_arrays(whole, shared)
    ears = Ears()
    first = ingest_maps(folder, images=images, limit=7, output=tmp_path / "f.zarr", report=ears)
    assert arrays(first)["image_id"].tolist() == names[:7]
    assert ears.warnings == []
