"""Stores in the forms of others, read back by their own tools, their rules, and `ingest`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsltool.errors import (
    DatasetError,
    LineageError,
    StoreExistsError,
    StoreKindError,
    UsageError,
)
from wsltool.stages.export import export
from wsltool.stages.export_places import MARKER
from wsltool.stages.ingest import ingest_coco, ingest_folder, ingest_voc
from wsltool.stages.ingest_boxes import ingest_boxes
from wsltool.stages.ingest_maps import ingest_maps
from wsltool.stages.ingest_masks import ingest_masks
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import (
    Ears,
    arrays,
    assert_equal_arrays,
    put_picture,
    rewritten,
    write_boxes,
    write_images,
    write_maps,
)

AWKWARD = [0.1, 1 / 3, 0.30000000000000004, 5e-324, 123.45678901234567, 2**52 + 1.0]
CLASSES = ["cat", "dog", "train"]


def boxes_of(rng, num, span=500.0):
    low = rng.uniform(0, span / 2, (num, 2))
    return np.concatenate([low, low + rng.uniform(0, span / 2, (num, 2))], axis=1)


@pytest.fixture
def images(tmp_path):
    """Four images with awkward true boxes; ids that COCO takes for numbers."""
    return write_images(
        tmp_path / "val.zarr",
        {
            "000000000042": {"boxes": [(0, 0.1, 0.2, 10.7, 9.9), (2, 1, 2, 3, 4, 1)]},
            "000000000007": {"boxes": [(1, 1 / 3, 0.30000000000000004, 7.1, 8.25)]},
            "100": {"boxes": []},
            "3": {"boxes": [(0, 0, 0, 20, 10)]},
        },
        CLASSES,
    )


@pytest.fixture
def predicted(tmp_path, images):
    """Predictions of them, ranked as a detector's are."""
    rng = np.random.default_rng(5)
    slots = {}
    for name, ranked in {
        "000000000042": [2, 0],
        "000000000007": [1],
        "100": [],
        "3": [0, 1],
    }.items():
        slots[name] = []
        for place, index in enumerate(ranked):
            score = np.float32(rng.uniform(0.5, 1)) / (place + 1)
            slots[name].append((index, score, *boxes_of(rng, 3).tolist()))
    return write_boxes(tmp_path / "found.zarr", images, slots, classes="all")


def assert_same_boxes(one, other):
    for name in (
        "map_class",
        "map_score",
        "box_start",
        "box",
        "box_class",
        "box_score",
        "box_slot",
    ):
        np.testing.assert_array_equal(arrays(one)[name], arrays(other)[name], err_msg=name)


SAYS_WHICH = "says which class each category_id is."


class TestCoco:
    def test_results_are_read_back_by_ingest_without_loss(self, predicted, images, tmp_path):
        ears = Ears()
        path = export(predicted, form="coco", report=ears)
        assert path == tmp_path / "found.coco.json"
        assert ears.notes == [f"{tmp_path}/found.coco.categories.json: {SAYS_WHICH}"]
        listed = tmp_path / "found.coco.categories.json"
        assert json.loads(listed.read_text()) == {
            "categories": [{"id": n + 1, "name": name} for n, name in enumerate(CLASSES)]
        }
        back = ingest_boxes(path, images=images, classes=listed)
        assert_same_boxes(predicted, back)
        assert verify(back)["problems"] == []

    def test_own_ids_need_no_categories(self, tmp_path):
        source = write_images(tmp_path / "i.zarr", {"7": {"boxes": [(0, 1, 2, 3, 4)]}}, ["a"])
        found = write_boxes(tmp_path / "b.zarr", source, {"7": [(0, 0.5, (1.5, 2, 3, 4))]})
        other = rewritten(tmp_path / "own.zarr", source, "images", class_id=["18"])
        path = export(found, form="coco", images=other, output=tmp_path / "r.json")
        assert json.loads(path.read_text()) == [
            {"image_id": 7, "category_id": 18, "bbox": [1.5, 2, 1.5, 2], "score": 0.5}
        ]
        assert [file.name for file in tmp_path.glob("*categories*")] == []
        assert_same_boxes(found, ingest_boxes(path, images=other))

    def test_pycocotools_reads_truth_and_results(self, predicted, images, tmp_path):
        coco = pytest.importorskip("pycocotools.coco")
        truth = coco.COCO(str(export(images, form="coco-truth", output=tmp_path / "t.json")))
        found = truth.loadRes(str(export(predicted, form="coco")))
        assert sorted(truth.getImgIds()) == [3, 7, 42, 100]
        expected = arrays(predicted)
        got = [found.anns[n + 1] for n in range(len(expected["box"]))]
        box = np.array([one["bbox"] for one in got])
        np.testing.assert_array_equal(box[:, :2], expected["box"][:, :2])
        np.testing.assert_allclose(
            box[:, 2:], expected["box"][:, 2:] - expected["box"][:, :2], rtol=0, atol=1e-13
        )
        assert [one["category_id"] - 1 for one in got] == expected["box_class"].tolist()
        assert [one["score"] for one in got] == expected["box_score"].astype(float).tolist()
        true = arrays(images)
        anns = [truth.anns[n + 1] for n in range(len(true["box"]))]
        assert [one["bbox"][:2] for one in anns] == true["box"][:, :2].tolist()
        assert [one["iscrowd"] for one in anns] == [0] * 4
        assert anns[1]["area"] == 4
        assert truth.imgs[42]["file_name"] == "000000000042.png"

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_crowds_areas_and_masks_of_the_truth(self, tmp_path):
        mask = pytest.importorskip("pycocotools.mask")
        coco = pytest.importorskip("pycocotools.coco")
        drawn = np.zeros((10, 20), np.uint8, order="F")
        drawn[2:5, 3:9] = 1
        rle = mask.encode(drawn)["counts"].decode()
        source = write_images(
            tmp_path / "i.zarr", {"a b/é": {"boxes": [(0, 3, 2, 9, 5), (0, 0, 0, 1, 1)]}}, ["x"]
        )
        more = {
            "box_crowd": np.array([1, 0], np.uint8),
            "box_area": np.array([17.5, 1.0]),
            "box_rle": [rle, ""],
        }
        rich = rewritten(tmp_path / "rich.zarr", source, "images", **more)
        truth = coco.COCO(str(export(rich, form="coco-truth")))
        one, two = truth.anns[1], truth.anns[2]
        assert (one["iscrowd"], one["area"], two["iscrowd"]) == (1, 17.5, 0)
        assert one["image_id"] == "a b/é"
        np.testing.assert_array_equal(truth.annToMask(one), drawn)
        assert "segmentation" not in two

    def test_truth_goes_back_through_ingest_coco(self, tmp_path):
        """In the order of the numbers; a crowd is difficult there."""
        boxes = {
            "7": [(1, 0.25, 1, 2, 9.5)],
            "42": [(0, 3, 2, 9, 5, 1), (1, 0.5, 0.25, 10.75, 1)],
            "100": [],
        }
        made = {name: {"boxes": listed} for name, listed in boxes.items()}
        source = write_images(tmp_path / "i.zarr", made, ["a", "b"])
        rich = rewritten(
            tmp_path / "rich.zarr",
            source,
            "images",
            class_id=["18", "3"],
            box_crowd=np.array([0, 1, 0], np.uint8),
            box_area=np.array([0.125, 17.5, 3.0]),
        )
        path = export(rich, form="coco-truth")
        back, expected = arrays(ingest_coco(path, no_images=True)), arrays(rich)
        order = [expected["class_id"].tolist().index(word) for word in back["class_id"].tolist()]
        for name in ("image_id", "box", "box_start", "box_crowd", "box_area", "box_difficult"):
            np.testing.assert_array_equal(back[name], expected[name], err_msg=name)
        assert [order[n] for n in back["box_class"].tolist()] == expected["box_class"].tolist()

    def test_two_ids_of_one_number_are_refused(self, tmp_path):
        source = write_images(tmp_path / "i.zarr", {"7": {}, "007": {}}, ["x"])
        found = write_boxes(tmp_path / "b.zarr", source, {"7": [], "007": []})
        with pytest.raises(
            DatasetError,
            match=r'^b\.zarr: images "7" and "007" would both be number 7\. Export the form csv\.$',
        ):
            export(found, form="coco")
        assert not (tmp_path / "b.coco.json").exists()
        assert [file.name for file in tmp_path.iterdir() if ".tmp" in file.name] == []


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    corners=st.lists(
        st.lists(
            st.one_of(st.sampled_from(AWKWARD), st.floats(0, 1e6), st.integers(0, 500).map(float)),
            min_size=4,
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    ),
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4),
)
def test_any_box_comes_back_from_every_form(tmp_path_factory, corners, scores):
    place = tmp_path_factory.mktemp("any")
    box = [(*np.minimum(c[:2], c[2:]), *np.maximum(c[:2], c[2:])) for c in corners]
    source = write_images(place / "i.zarr", {"5": {}}, CLASSES)
    ordered = sorted(scores[: len(box)], reverse=True)
    rows = [(0, ordered[0], *box)]
    found = write_boxes(place / "b.zarr", source, {"5": rows}, classes="all")
    score = np.array(ordered, np.float32)
    exact = rewritten(place / "exact.zarr", found, "boxes", made_from=[source], box_score=score)
    listed = place / "r.categories.json"
    path = export(exact, form="coco", output=place / "r.json")
    assert_same_boxes(exact, ingest_boxes(path, images=source, classes=listed))
    folder = export(exact, form="voc-comp")
    assert_same_boxes(exact, ingest_boxes(folder, images=source, form="voc"))
    lines = export(exact, form="csv").read_text().splitlines()[1:]
    assert [tuple(map(float, line.split(",")[1:5])) for line in lines] == [
        tuple(map(float, one)) for one in box
    ]


def textread(path):
    """Transcribe the devkit's ``textread(file, '%s %f %f %f %f %f')``: blanks part the words."""
    words = Path(path).read_text("utf-8").split()
    return [(words[n], *map(float, words[n + 1 : n + 6])) for n in range(0, len(words), 6)]


def read_voc_xml(path):
    """Transcribe ``VOCreadxml``: nested tags become nested records, repeated ones lists."""

    def parse(text):
        found = {}
        for tag, inner in re.findall(r"<(\w+)>(.*?)</\1>", text, re.DOTALL):
            value = parse(inner) if "<" in inner else inner.strip()
            found.setdefault(tag, []).append(value)
        return found

    return parse(Path(path).read_text("utf-8"))["annotation"][0]


class TestVoc:
    def test_results_are_what_the_devkit_reads(self, predicted, images):
        folder = export(predicted, form="voc-comp", split="val")
        assert folder.name == "found.voc-comp"
        names = sorted(file.name for file in folder.iterdir())
        assert names == sorted([MARKER, *(f"comp3_det_val_{name}.txt" for name in CLASSES)])
        expected = arrays(predicted)
        image = np.repeat(expected["image_id"].tolist(), np.diff(expected["box_start"]))
        for index, name in enumerate(CLASSES):
            read = textread(folder / f"comp3_det_val_{name}.txt")
            mine = expected["box_class"] == index
            assert [row[0] for row in read] == image[mine].tolist()
            assert [row[1] for row in read] == expected["box_score"][mine].astype(float).tolist()
            corners = expected["box"][mine] + [1, 1, 0, 0]
            np.testing.assert_array_equal([row[2:] for row in read], corners)
        back = ingest_boxes(folder, images=images, form="voc")
        assert_same_boxes(predicted, back)

    def test_a_blank_in_an_id_is_refused(self, tmp_path):
        source = write_images(tmp_path / "i.zarr", {"a b": {}}, ["x"])
        found = write_boxes(tmp_path / "b.zarr", source, {"a b": [(0, 1, (0, 0, 1, 1))]})
        with pytest.raises(DatasetError, match=r'^image id "a b" holds a blank or nothing, which'):
            export(found, form="voc-comp")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["b.zarr", "i.zarr"]

    def test_a_class_with_a_slash_is_refused(self, tmp_path):
        source = write_images(tmp_path / "i.zarr", {"a": {}}, ["x/y"])
        found = write_boxes(tmp_path / "b.zarr", source, {"a": []})
        with pytest.raises(DatasetError, match=r'^class "x/y" cannot stand in the name of a file'):
            export(found, form="voc-comp")

    def test_class_scores(self, tmp_path, images):
        maps = write_maps(
            tmp_path / "m.zarr",
            images,
            {name: (None, []) for name in arrays(images)["image_id"].tolist()}
            | {"100": (None, [(0, 1, [[1.0]])])},
        )
        score = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        score[1, 1] = -np.inf
        scored = rewritten(tmp_path / "s.zarr", maps, "maps", made_from=[images], class_score=score)
        folder = export(scored, form="voc-cls", split="val")
        words = (folder / "comp1_cls_val_dog.txt").read_text().split()
        assert words[::2] == ["000000000042", "100", "3"]
        assert list(map(float, words[1::2])) == score[[0, 2, 3], 1].astype(float).tolist()

    def test_annotations_are_what_the_devkit_reads(self, images):
        folder = export(images, form="voc-xml")
        record = read_voc_xml(folder / "000000000042.xml")
        assert record["filename"] == ["000000000042.png"]
        assert record["size"] == [{"width": ["20"], "height": ["10"], "depth": ["3"]}]
        one, two = record["object"]
        assert (one["name"], one["difficult"]) == (["cat"], ["0"])
        assert one["bndbox"] == [
            {"xmin": ["1.1"], "ymin": ["1.2"], "xmax": ["10.7"], "ymax": ["9.9"]}
        ]
        assert (two["name"], two["difficult"], two["truncated"]) == (["train"], ["1"], ["0"])
        assert two["bndbox"] == [{"xmin": ["2"], "ymin": ["3"], "xmax": ["3"], "ymax": ["4"]}]
        assert "object" not in read_voc_xml(folder / "100.xml")

    def test_annotations_go_back_through_ingest(self, tmp_path):
        """Corners that no double holds one pixel further on; names with marks of XML."""
        classes = ["a & b", "<c>", "d"]
        boxes = {
            "x": [(0, 0, 0, 20, 10), (2, 1, 2, 3, 4, 1)],
            "y": [(1, 0.1, 1 / 3, 7.1, 8.25), (1, 5e-324, 0.30000000000000004, 1.7, 9.9)],
            "z": [],
        }
        source = write_images(
            tmp_path / "i.zarr", {k: {"boxes": v} for k, v in boxes.items()}, classes
        )
        voc = tmp_path / "VOC"
        (voc / "ImageSets/Main").mkdir(parents=True)
        (voc / "ImageSets/Main/val.txt").write_text("x\ny\nz\n")
        for name in boxes:
            put_picture(voc / f"JPEGImages/{name}.png", (20, 10))
        (tmp_path / "classes.txt").write_text("\n".join(classes) + "\n")
        export(source, form="voc-xml", output=voc / "Annotations")
        back = arrays(ingest_voc(voc, split="val", classes=tmp_path / "classes.txt"))
        expected = arrays(source)
        for name in ("box", "box_start", "box_class", "box_difficult"):
            np.testing.assert_array_equal(back[name], expected[name], err_msg=name)

    def test_predicted_annotations_have_scores(self, predicted):
        folder = export(predicted, form="voc-xml")
        record = read_voc_xml(folder / "000000000007.xml")
        scores = [float(one["score"][0]) for one in record["object"]]
        assert scores == arrays(predicted)["box_score"][6:9].astype(float).tolist()


def test_csv_goes_back_through_ingest_folder(tmp_path):
    root = tmp_path / "my pets"
    names = ["cat/a b.png", "cat/ü,1.png", "dog/c.png"]
    for name in names:
        put_picture(root / name, (20, 10))
    table = tmp_path / "b.csv"
    rows = ["cat/a b.png,0.1,0.2,10.7,9.9,1,0", '"cat/ü,1.png",0,0,20,10,0,1']
    table.write_text("image,x0,y0,x1,y1,difficult,truncated\n" + "\n".join(rows) + "\n")
    source = ingest_folder(root, boxes=table, output=tmp_path / "one.zarr")
    path = export(source, form="csv")
    assert path.read_text().splitlines() == [
        "image,x0,y0,x1,y1,label,difficult,truncated",
        "cat/a b.png,0.1,0.2,10.7,9.9,cat,1,0",
        '"cat/ü,1.png",0,0,20,10,cat,0,1',
    ]
    back = ingest_folder(root, boxes=path, output=tmp_path / "two.zarr")
    assert_equal_arrays(source, back)


def test_csv_of_predictions_can_be_the_boxes_of_a_folder(tmp_path):
    root = tmp_path / "pets"
    put_picture(root / "cat/a.png", (20, 10))
    source = ingest_folder(root)
    found = write_boxes(tmp_path / "b.zarr", source, {"cat/a.png": [(0, 0.1, (0.1, 1, 2, 3))]})
    path = export(found, form="csv")
    assert path.read_text() == (
        "image,x0,y0,x1,y1,label,score\ncat/a.png,0.1,1,2,3,cat,0.10000000149011612\n"
    )
    back = ingest_folder(root, boxes=path, output=tmp_path / "two.zarr")
    np.testing.assert_array_equal(arrays(back)["box"], arrays(found)["box"])


def test_csv_of_names_that_repeat_gives_ids(tmp_path):
    source = write_images(
        tmp_path / "i.zarr", {"a": {"boxes": [(1, 0, 0, 1, 1)]}}, ["crane", "crane"]
    )
    other = rewritten(tmp_path / "w.zarr", source, "images", class_id=["n01", "n02"])
    assert export(other, form="csv").read_text().splitlines()[1] == "a,0,0,1,1,n02,0"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_maps_go_back_through_ingest(tmp_path, dtype):
    rng = np.random.default_rng(3)
    names = ["a b/ü.jpg", "b", "c.png", "d"]
    source = write_images(
        tmp_path / "i.zarr", {name: {"labels": {0: 1}} for name in names}, CLASSES
    )
    maps = write_maps(
        tmp_path / "m.zarr",
        source,
        {
            names[0]: (
                (1, 2, 15, 9.5),
                [(2, 3.5, rng.normal(size=(3, 5))), (0, -1, rng.normal(size=(3, 5)))],
            ),
            names[1]: (None, []),
            names[2]: (None, [(1, 0, rng.normal(size=(4, 2)))]),
            names[3]: (None, [(1, 0.25, rng.normal(size=(4, 5)))]),
        },
        classes="top1",
        dtype=dtype,
        map_grid=np.array([[3, 5], [0, 0], [4, 2], [4, 5]], np.int32),
        score_kind="logit",
        probability="sigmoid",
    )
    folder = export(maps, form="npy")
    assert np.load(folder / "a b/ü.jpg.npy").dtype == dtype
    assert np.load(folder / "c.png.npy").shape == (1, 4, 2)
    back = ingest_maps(
        folder,
        images=source,
        classes=str(folder / "maps.json"),
        class_score=folder / "class-score.npy",
        map_dtype=np.dtype(dtype).name,
    )
    expected = arrays(maps)
    got = arrays(back)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        if name != "map_grid":
            np.testing.assert_array_equal(got[name], value, err_msg=name)
    np.testing.assert_array_equal(got["map_grid"], expected["map_grid"])
    with open_store(back) as store:
        assert store.attributes["classes"] == "top1"
        assert store.attributes["score_kind"] == "logit"
        assert store.attributes["probability"] == "sigmoid"
    assert verify(back)["problems"] == []


@pytest.mark.parametrize("classes", ["present", "all", CLASSES[0]])
def test_maps_in_falling_score_are_not_taken_for_classes_in_order(tmp_path, classes):
    """The first map is that of class 1 here, but the first class present is 0."""
    source = write_images(tmp_path / "i.zarr", {"a": {"labels": {0: 1, 1: 1}}}, CLASSES)
    slots = [(1, 2.0, np.ones((2, 2))), (0, 1.0, np.zeros((2, 2)))]
    folder = export(write_maps(tmp_path / "m.zarr", source, {"a": (None, slots)}), form="npy")
    with pytest.raises(
        UsageError,
        match=rf"m\.npy/maps\.json: says what the maps in this folder are of, --classes says "
        rf"{classes}\. Pass --classes \S+/m\.npy/maps\.json, or move it away\.$",
    ):
        ingest_maps(folder, images=source, classes=classes)


def test_boxes_of_classes_that_the_truth_chose_are_told(predicted, tmp_path, images):
    chosen = write_boxes(tmp_path / "p.zarr", images, {"3": []}, classes="present")
    for store, told in ((predicted, []), (chosen, ["p.zarr: holds the classes present, so the"])):
        ears = Ears()
        export(store, form="csv", report=ears)
        assert [line[:41] for line in ears.warnings] == told


def test_ranks_that_boxes_do_not_tell_are_told(tmp_path, images):
    """As guessed by Zhou's scripts: class 0 twice, class 1 without a box, class 2 with one."""
    slots = [(0, 3.0, (0, 0, 9, 9)), (0, 3.0, (1, 1, 9, 9)), (1, 2.0), (2, 1.0, (0, 0, 1, 1))]
    guessed = write_boxes(tmp_path / "z.zarr", images, {"100": slots, "3": slots[:1]})
    ears = Ears()
    export(guessed, form="csv", report=ears)
    assert ears.notes == [
        "z.zarr: 2 ranked classes have no box or stand twice; files of boxes do not tell their "
        "rank, which ilsvrc-top5 reads."
    ]


def test_suppressed_cells_are_told(tmp_path):
    source = write_images(tmp_path / "i.zarr", {"a": {}}, CLASSES)
    gone = np.ones((1, 1, 1, 1), np.uint8)
    maps = write_maps(
        tmp_path / "m.zarr", source, {"a": (None, [(0, 1, [[2.0]])])}, suppressed=gone
    )
    ears = Ears()
    export(maps, form="npy", report=ears)
    assert ears.warnings == [
        "m.zarr: which cells are suppressed is left behind; they keep the floor."
    ]


def test_masks_go_back_through_ingest(tmp_path):
    source = write_images(tmp_path / "i.zarr", {"a b/ü.jpg": {}, "c": {}}, CLASSES, size=(5, 4))
    for name in ("a b/ü.jpg", "c"):
        label = np.arange(20, dtype=np.uint8).reshape(4, 5) % 4
        put_picture(tmp_path / f"theirs/{name}.png", label)
    masks = ingest_masks(tmp_path / "theirs", images=source)
    folder = export(masks, form="png")
    assert (folder / "a b/ü.jpg.png").read_bytes() == (
        tmp_path / "theirs/a b/ü.jpg.png"
    ).read_bytes()
    assert_equal_arrays(masks, ingest_masks(folder, images=source, output=tmp_path / "two.zarr"))


class TestPlaces:
    def test_the_same_again_is_left_alone(self, predicted):
        path = export(predicted, form="csv")
        before = path.stat().st_mtime_ns, path.stat().st_ino
        ears = Ears()
        assert export(predicted, form="csv", report=ears) == path
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
        assert ears.announced == [path]
        folder = export(predicted, form="voc-comp")
        before = folder.stat().st_ino
        ears = Ears()
        assert export(predicted, form="voc-comp", report=ears) == folder
        assert folder.stat().st_ino == before
        assert ears.notes == [f"{folder}: exported already, left alone."]

    def test_a_part_of_an_export_is_not_left_as_it_is(self, predicted):
        folder = export(predicted, form="voc-comp")
        lost = folder / "comp3_det_test_dog.txt"
        text = lost.read_text()
        lost.unlink()
        with pytest.raises(
            StoreExistsError,
            match=r"voc-comp: another export, or a part of one, stands there\. Pass --overwrite to "
            r"replace it, or -o\.$",
        ):
            export(predicted, form="voc-comp")
        export(predicted, form="voc-comp", overwrite=True)
        assert lost.read_text() == text

    def test_another_file_is_replaced_on_request(self, predicted, tmp_path):
        path = tmp_path / "r.csv"
        path.write_text("precious\n")
        with pytest.raises(
            StoreExistsError,
            match=r"r\.csv: another file stands there\. Pass --overwrite to replace it, or -o\.$",
        ):
            export(predicted, form="csv", output=path)
        assert path.read_text() == "precious\n"
        export(predicted, form="csv", output=path, overwrite=True)
        assert path.read_text().startswith("image,x0")

    def test_a_folder_of_somebody_else_is_never_touched(self, predicted, tmp_path):
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "a.txt").write_text("precious")
        for overwrite in (False, True):
            with pytest.raises(
                StoreExistsError, match=r"mine: something stands there that was not exported\."
            ):
                export(predicted, form="voc-comp", output=folder, overwrite=overwrite)
        assert (folder / "a.txt").read_text() == "precious"
        with pytest.raises(StoreExistsError, match=r"mine: is a folder, expected a file's name"):
            export(predicted, form="csv", output=folder, overwrite=True)

    def test_an_export_is_replaced_unless_something_was_added(self, predicted, images, tmp_path):
        folder = export(predicted, form="voc-comp", output=tmp_path / "out")
        with pytest.raises(StoreExistsError, match=r"out: another export, or a part of one, st"):
            export(images, form="voc-xml", output=folder)
        (folder / "notes.md").write_text("precious")
        with pytest.raises(
            StoreExistsError, match=r"out: holds notes\.md, which was not exported with it\."
        ):
            export(images, form="voc-xml", output=folder, overwrite=True)
        (folder / "notes.md").unlink()
        export(images, form="voc-xml", output=folder, overwrite=True)
        assert sorted(file.suffix for file in folder.iterdir()) == [".json"] + [".xml"] * 4

    def test_a_link_is_not_followed(self, predicted, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        for form in ("csv", "voc-comp"):
            with pytest.raises(StoreExistsError, match=r"link: is a symbolic link, which is not"):
                export(predicted, form=form, output=tmp_path / "link", overwrite=True)

    def test_no_such_folder(self, predicted, tmp_path):
        with pytest.raises(
            UsageError, match=r"the folder .*nowhere does not exist\. Make it first"
        ):
            export(predicted, form="csv", output=tmp_path / "nowhere/r.csv")

    @pytest.mark.parametrize("name", ["../a", "/a", "a//b", "a/", "a/../b"])
    def test_ids_never_lead_out_of_the_folder(self, tmp_path, name):
        source = write_images(tmp_path / "i.zarr", {name: {}}, CLASSES)
        with pytest.raises(DatasetError, match=r'^".*" cannot be the name of a file\. Export'):
            export(source, form="voc-xml", output=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "a.xml").exists()

    def test_a_name_that_is_too_long(self, tmp_path):
        source = write_images(tmp_path / "i.zarr", {"é" * 150: {}}, CLASSES)
        with pytest.raises(DatasetError, match=r"é…\" is too long for the name of a file\.$"):
            export(source, form="voc-xml")


class TestRefusals:
    def test_another_kind(self, predicted, images):
        with pytest.raises(
            StoreKindError,
            match=r'^found\.zarr: kind is "boxes", but --form npy is made of maps\. From boxes: '
            r"coco, voc-xml, voc-comp, csv\.$",
        ):
            export(predicted, form="npy")
        with pytest.raises(StoreKindError, match=r'"images", but --form coco is made of boxes\.'):
            export(images, form="coco")

    def test_images_without_boxes(self, tmp_path):
        source = write_images(tmp_path / "i.zarr", {"a": {}}, CLASSES, boxes=False)
        with pytest.raises(StoreKindError, match=r"^i\.zarr: has no true boxes, but --form csv"):
            export(source, form="csv")

    def test_no_images_behind(self, tmp_path, images):
        found = write_boxes(tmp_path / "b.zarr", images, {"3": []}, made_from=[])
        with pytest.raises(LineageError, match=r"Say where with --images\.$"):
            export(found, form="csv")
        export(found, form="csv", images=images)
        other = write_images(tmp_path / "o.zarr", {"3": {}}, ["other"])
        with pytest.raises(UsageError, match=r"^o\.zarr: has other classes than b\.zarr\. Give"):
            export(found, form="csv", images=other)

    def test_options(self, predicted):
        with pytest.raises(UsageError, match=r'^--form must be coco, .* or png, got "tiff"\.$'):
            export(predicted, form="tiff")
        with pytest.raises(UsageError, match=r'^--split must be letters.*, got "a/b"\.$'):
            export(predicted, form="voc-comp", split="a/b")

    def test_skipped_images_are_told_and_left_out(self, tmp_path):
        source = write_images(
            tmp_path / "i.zarr", {"a": {}, "b": {"status": 1, "size": (0, 0)}}, CLASSES
        )
        ears = Ears()
        folder = export(source, form="voc-xml", report=ears)
        assert ears.warnings == ["i.zarr: 1 images were skipped; they are not written."]
        assert sorted(file.name for file in folder.glob("*.xml")) == ["a.xml"]
