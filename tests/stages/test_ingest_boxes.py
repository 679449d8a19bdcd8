"""Detections of other tools become a boxes store: ranks, conventions, bad files, size."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from wsltool.errors import BadImageError, DatasetError, UsageError
from wsltool.stages.ingest_boxes import ingest_boxes
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import Ears, arrays, assert_equal_arrays, meta, rewritten, write_images

CLASSES = ["cat", "dog", "train"]
IDS = ["COCO_val2014_000000000042", "000000000007", "x/a.jpg"]


@pytest.fixture
def images(tmp_path):
    source = write_images(tmp_path / "i.zarr", {key: {} for key in IDS}, CLASSES, boxes=False)
    return rewritten(tmp_path / "val.zarr", source, "images", class_id=["1", "18", "90"])


def entry(image, category, score, bbox=(1, 2, 3, 4)):
    return {"image_id": image, "category_id": category, "bbox": list(bbox), "score": score}


def put_json(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_coco_array_by_array(tmp_path, images, suffix):
    """Classes by their best box, boxes by score, ties in the file's order."""
    listed = [
        entry(42, 18, 0.5, (0, 0, 1, 1)),
        entry(42, 1, 0.25, (1, 1, 1, 1)),
        entry("a", 90, 0.1),
        entry(42, 18, 0.75, (2, 2, 1, 1)),
        entry(42, 1, 0.6, (3, 3, 0, 0)),
        entry(42, 18, 0.5, (4, 4, 1, 1.5)),
        entry(42, 90, 0.6, (-5, 5, 100, 1)),
    ]
    path = put_json(tmp_path / "r.json", listed)
    output = ingest_boxes(path, images=images, output=tmp_path / f"out{suffix}")
    found = arrays(output)
    assert found["image_id"].tolist() == IDS
    assert found["box_start"].tolist() == [0, 6, 6, 7]
    assert found["box_class"].tolist() == [1, 1, 1, 0, 0, 2, 2]
    assert found["box_slot"].tolist() == [0, 0, 0, 1, 1, 2, 0]
    expected = [0.75, 0.5, 0.5, 0.6, 0.25, 0.6, 0.1]
    np.testing.assert_array_equal(found["box_score"], np.array(expected, np.float32))
    assert found["box"].tolist() == [
        [2, 2, 3, 3],
        [0, 0, 1, 1],
        [4, 4, 5, 5.5],
        [3, 3, 3, 3],
        [1, 1, 2, 2],
        [-5, 5, 95, 6],
        [1, 2, 4, 6],
    ]
    assert found["map_class"].tolist() == [[1, 0, 2], [-1, -1, -1], [2, -1, -1]]
    score = [[0.75, 0.6, 0.6], [-np.inf] * 3, [0.1, -np.inf, -np.inf]]
    np.testing.assert_array_equal(found["map_score"], np.array(score, np.float32))
    assert found["image_status"].tolist() == [0, 0, 0]
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        assert store.attributes["classes"] == "all"
        assert store.attributes["box_score_kind"] == "detector"
    assert set(meta(output)["inputs"]) == {"images", "file"}


def test_the_right_edge_is_the_sum_as_written(tmp_path, images):
    """0.1 + 0.2 is 0.3 to a reader of the file, not 0.30000000000000004."""
    text = '[{"image_id": 7, "category_id": 1, "bbox": [0.1, 1e-1, 0.2, 2E-1], "score": 1}]'
    found = arrays(ingest_boxes(put_json(tmp_path / "r.json", text), images=images))
    assert found["box"].tolist() == [[0.1, 0.1, 0.3, 0.3]]


def test_voc_files_array_by_array(tmp_path, images):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "comp3_det_val_cat.txt").write_text("7 0.5 1 1 3 4\na 0.25 1.1 2 3.5 4\n\n")
    (folder / "comp3_det_val_train.txt").write_text("000000000007 .75 2 2 3 3\r\n")
    (folder / "readme.txt").write_text("hello\n")
    ears = Ears()
    output = ingest_boxes(folder, images=images, form="voc", report=ears)
    assert output == tmp_path / "results.boxes.zarr"
    assert ears.warnings == [
        f"{folder}: text files that belong to no class: 1, the first is readme.txt. Not read."
    ]
    found = arrays(output)
    assert found["box_start"].tolist() == [0, 0, 2, 3]
    assert found["box"].tolist() == [[1, 1, 3, 3], [0, 0, 3, 4], [0.1, 1, 3.5, 4]]
    assert found["box_class"].tolist() == [2, 0, 0]
    assert set(meta(output)["inputs"]) == {"images", "listing"}
    some = ingest_boxes(folder / "comp3_det_val_*.txt", images=images, form="voc")
    assert some == folder / "comp3_det_val.boxes.zarr"
    assert_equal_arrays(output, some)
    one = ingest_boxes(folder / "comp3_det_val_cat.txt", images=images, form="voc")
    assert arrays(one)["box_class"].tolist() == [0, 0]


def test_categories_of_another_file(tmp_path, images):
    told = {"categories": [{"id": 5, "name": "dog"}, {"id": 6, "name": "90"}]}
    listed = put_json(tmp_path / "c.json", told)
    path = put_json(tmp_path / "r.json", [entry(7, 5, 0.5), entry(7, 6, 0.75)])
    found = arrays(ingest_boxes(path, images=images, classes=listed))
    assert found["box_class"].tolist() == [2, 1]


def test_ids_that_are_no_numbers_need_categories(tmp_path):
    images = write_images(tmp_path / "i.zarr", {"a": {}}, CLASSES)
    path = put_json(tmp_path / "r.json", [entry("a", 1, 0.5)])
    with pytest.raises(
        UsageError,
        match=r"r\.json: category ids are numbers, but the classes of i\.zarr have the ids id cat, "
        r"id dog, id train, …\. Say with --classes FILE which is which",
    ):
        ingest_boxes(path, images=images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"r\.json: no valid JSON, Expecting value"),
        ("[" * 100_000, r"r\.json: no valid JSON, nested too deep"),
        ('{"a": 1}', r"r\.json: is no JSON list, but \{'a': 1\}; expected COCO's results format"),
        ("[3]", r'r\.json entry 1: has no "image_id"; expected image_id, category_id, bbox, score'),
        ('[{"bbox": []}]', r'entry 1: has no "image_id"'),
        ([entry(7, 1, 0.5), {"image_id": 7}], r'entry 2: has no "category_id"; expected image_id,'),
        (
            [{"image_id": 7, "category_id": 1, "score": 1, "segmentation": {"counts": "a"}}],
            r'entry 1: has no "bbox"; expected .* \(masks are read by ingest masks\)\.$',
        ),
        ([entry(7, 1, 0.5, (1, 2, 3))], r"entry 1: bbox is \[1, 2, 3\], expected four numbers\.$"),
        ([entry(7, 1, 0.5, (1, 2, 3, "4"))], r"entry 1: bbox is \[1, 2, 3, '4'\], expected four"),
        ([entry(7, 1, "0.5")], r"entry 1: score is '0\.5', expected a number\.$"),
        ([entry(7, 1, None)], r"entry 1: score is None, expected a number\.$"),
        ([entry(7, 1, True)], r"entry 1: score is True, expected a number\.$"),
        ([entry([7], 1, 0.5)], r"entry 1: image_id is \[7\], expected a number or text\.$"),
        ([entry(7, "cat", 0.5)], r"entry 1: category_id is 'cat', expected a whole number\.$"),
        (
            [entry(7, 2, 0.5)],
            r"entry 1: category_id 2 is none of the 3 categories \(1, 18, 90\)\.$",
        ),
        ([[entry(7, 1, 0.5)]], r'entry 1: has no "image_id"'),
        (
            [entry(7, 1, 0.5) | {"more": entry(7, 1, 0.5)}],
            r"detections lie within others; expected",
        ),
        (
            [entry(99, 1, 0.5)],
            r'none of the 1 images \("99", …\) is in val\.zarr\. Give the images',
        ),
        ('[{"image_id": 7, "score": 1e99999999999999999999}]', r"a number is out of range\.$"),
    ],
)
def test_bad_results(tmp_path, images, text, message):
    with pytest.raises(DatasetError, match=message):
        ingest_boxes(put_json(tmp_path / "r.json", text), images=images)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([], r'c\.json: no list "categories" in it; expected COCO\'s annotations\.$'),
        ({"categories": [{"id": "1", "name": "cat"}]}, r'category 1: no "id" that is a whole numb'),
        ({"categories": [{"id": 1, "name": "cow"}]}, r'category 1: name "cow" is none of the 3 cl'),
        (
            {"categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]},
            r"category 2: id 1 stands there twice\.$",
        ),
    ],
)
def test_bad_categories(tmp_path, images, told, message):
    path = put_json(tmp_path / "r.json", [entry(7, 1, 0.5)])
    with pytest.raises(DatasetError, match=message):
        ingest_boxes(path, images=images, classes=put_json(tmp_path / "c.json", told))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            '"bbox": [NaN, 2, 3, 4], "score": 1',
            r"entry 2: box \[nan, 2\.0, nan, 6\.0\] is not finite",
        ),
        ('"bbox": [1, 2, Infinity, 4], "score": 1', r"entry 2: box .* is not finite\."),
        ('"bbox": [1, 2, 1e400, 4], "score": 1', r"entry 2: box .* is not finite\."),
        ('"bbox": [1, 2, 1' + "0" * 400 + ', 4], "score": 1', r"entry 2: box .* is not finite\."),
        (
            '"bbox": [1, 2, -3, 4], "score": 1',
            r"entry 2: box \[1\.0, 2\.0, -2\.0, 6\.0\] .*before it begins",
        ),
        ('"bbox": [1, 2, 3, 4], "score": NaN', r"entry 2: score nan is not finite\."),
        ('"bbox": [1, 2, 3, 4], "score": 1e39', r"entry 2: score 1e\+39 is not finite\."),
    ],
)
def test_a_bad_detection_is_a_bad_image(tmp_path, images, numbers, message):
    text = (
        '[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}, '
        f'{{"image_id": 42, "category_id": 1, {numbers}}}]'
    )
    path = put_json(tmp_path / "r.json", text)
    with pytest.raises(BadImageError, match=r'^val\.zarr row 0 "COCO.*42": r\.json ' + message):
        ingest_boxes(path, images=images)
    ears = Ears()
    found = arrays(ingest_boxes(path, images=images, on_bad="skip", report=ears))
    assert found["image_status"].tolist() == [1, 0, 0]
    assert found["box_start"].tolist() == [0, 0, 1, 1]
    assert found["map_class"].tolist() == [[-1], [0], [-1]]
    assert ears.num_skipped == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0.5 1 1 3", r'line 1: "7 0\.5 1 1 3"; expected an image id, a score and xmin ymin'),
        ("7 0.5 1 1 3 x", r"line 1: .*expected an image id, a score"),
        ("7 0x1 1 1 3 4", r"line 1: .*expected an image id, a score"),
        ("7 1_0 1 1 3 4", r"line 1: .*expected an image id, a score"),
    ],
)
def test_bad_lines_of_voc(tmp_path, images, line, message):
    (tmp_path / "dog.txt").write_text(line + "\n")
    with pytest.raises(DatasetError, match=message):
        ingest_boxes(tmp_path / "dog.txt", images=images, form="voc")


def test_bad_numbers_of_voc(tmp_path, images):
    (tmp_path / "dog.txt").write_text("7 0.5 1 1 3 4\n7 0.5 5 1 3 4\n")
    with pytest.raises(
        BadImageError, match=r"dog\.txt line 2: box \[4\.0, 0\.0, 3\.0, 4\.0\] .* ends before it be"
    ):
        ingest_boxes(tmp_path / "dog.txt", images=images, form="voc")
    (tmp_path / "dog.txt").write_text("7 nan 1 1 3 4\n")
    with pytest.raises(BadImageError, match=r"dog\.txt line 1: score nan is not finite\."):
        ingest_boxes(tmp_path / "dog.txt", images=images, form="voc", overwrite=True)


def test_voc_files_that_cannot_be(tmp_path, images):
    folder = tmp_path / "r"
    folder.mkdir()
    with pytest.raises(DatasetError, match=r"r: no results file in it; expected comp3_det_SPLIT_"):
        ingest_boxes(folder, images=images, form="voc")
    for number in (3, 4):
        (folder / f"comp{number}_det_val_dog.txt").write_text("")
    with pytest.raises(
        DatasetError,
        match=r'r: class "dog" has two files \(comp3_det_val_dog\.txt, comp4_det_val_dog\.txt\)\.',
    ):
        ingest_boxes(folder, images=images, form="voc")
    with pytest.raises(UsageError, match=r"^--classes c\.json: VOC's files name their classes\."):
        ingest_boxes(folder, images=images, form="voc", classes="c.json")
    with pytest.raises(UsageError, match=r'^--form must be coco or voc, got "csv"\.$'):
        ingest_boxes(folder, images=images, form="csv")
    found = arrays(ingest_boxes(folder / "comp3*", images=images, form="voc"))
    assert found["box_start"].tolist() == [0] * 4


def test_detections_of_other_images_are_told(tmp_path, images):
    listed = [entry(99, 1, 0.5), entry(7, 1, 0.5), entry(99, 1, 0.5), entry("q", 1, 0.5)]
    ears = Ears()
    ingest_boxes(put_json(tmp_path / "r.json", listed), images=images, report=ears)
    assert ears.warnings == [
        'r.json: 3 detections are of 2 images that val.zarr lacks, the first is "99". Not read.'
    ]


def test_a_name_that_fits_several_images_is_refused(tmp_path):
    images = write_images(tmp_path / "i.zarr", {"a/1.jpg": {}, "b/1.jpg": {}}, CLASSES)
    (tmp_path / "dog.txt").write_text("1.jpg 0.5 1 1 3 4\n")
    with pytest.raises(
        DatasetError,
        match=r'^image "1\.jpg" fits 2 images of i\.zarr \("a/1\.jpg", "b/1\.jpg"\)\. Give',
    ):
        ingest_boxes(tmp_path / "dog.txt", images=images, form="voc")


def test_an_empty_list_is_no_detection(tmp_path, images):
    found = arrays(ingest_boxes(put_json(tmp_path / "r.json", []), images=images))
    assert found["map_class"].tolist() == [[-1]] * 3
    assert len(found["box"]) == 0


def test_shards_and_limits(tmp_path):
    names = [str(n) for n in range(600)]
    source = write_images(tmp_path / "i.zarr", {key: {} for key in names}, CLASSES)
    images = rewritten(tmp_path / "v.zarr", source, "images", class_id=["1", "2", "3"])
    rng = np.random.default_rng(0)
    listed = [
        entry(int(rng.integers(600)), int(rng.integers(1, 4)), round(float(rng.random()), 1))
        for _ in range(3000)
    ]
    path = put_json(tmp_path / "r.json", listed)
    whole = ingest_boxes(path, images=images)
    shared = tmp_path / "s.h5"
    for shard in ("2/3", "0/3", "1/3"):
        ingest_boxes(path, images=images, output=shared, shard=shard)
    assert_equal_arrays(whole, shared)
    first = arrays(ingest_boxes(path, images=images, limit=5, output=tmp_path / "f.zarr"))
    whole_arrays = arrays(whole)
    stop = whole_arrays["box_start"][5]
    np.testing.assert_array_equal(first["box"], whole_arrays["box"][:stop])
    assert first["image_id"].tolist() == names[:5]


@pytest.mark.benchmark
def test_a_million_boxes(tmp_path):
    """Ten to twenty seconds on one core, in well under 2 GB."""
    import resource

    names = [f"{n:012}" for n in range(5000)]
    source = write_images(tmp_path / "i.zarr", {key: {} for key in names}, CLASSES)
    images = rewritten(tmp_path / "v.zarr", source, "images", class_id=["1", "2", "3"])
    rng = np.random.default_rng(0)
    with (tmp_path / "r.json").open("w") as file:
        for n in range(1_000_000):
            bbox = ", ".join(map(repr, rng.uniform(0, 300, 4).tolist()))
            file.write(
                f'{"," if n else "["}{{"image_id": {n % 5000}, "category_id": {n % 3 + 1}, '
                f'"bbox": [{bbox}], "score": {rng.random()}}}'
            )
        file.write("]")
    start = time.monotonic()
    found = ingest_boxes(tmp_path / "r.json", images=images)
    spent_s = time.monotonic() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert len(arrays(found)["box"]) == 1_000_000
    assert spent_s < 120
    assert peak_mb < 2000
