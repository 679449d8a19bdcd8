"""Given boxes ranked by maps: worked out by hand through the whole stage."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsltool.errors import (
    BadImageError,
    LineageError,
    ProtocolError,
    StoreKindError,
    UsageError,
)
from wsltool.localize.box_ranking import aggregate_in_boxes, suppress_overlaps
from wsltool.stages.rank_boxes import rank_boxes
from wsltool.stages.score import score
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import (
    Ears,
    arrays,
    assert_equal_arrays,
    meta,
    rewritten,
    write_boxes,
    write_images,
    write_maps,
)

CLASSES = ["cat", "dog", "cow"]
LEFT, RIGHT = [[4.0, 0.0]], [[-1.0, 3.0]]  # one row, two columns
L, R, ALL = (0, 0, 20, 20), (20, 0, 40, 20), (0, 0, 40, 20)
NEAR_L = (0, 0, 22, 20)


@pytest.fixture
def images(tmp_path):
    return write_images(
        tmp_path / "s.zarr",
        {"a": {"boxes": [(1, *L), (0, *R)]}, "b": {}, "c": {"boxes": [(2, *L)]}},
        CLASSES,
        size=(40, 20),
    )


@pytest.fixture
def maps(images, tmp_path):
    """Image a: dog on the left, cat on the right; b without maps; c: cow on the right."""
    return write_maps(
        tmp_path / "m.zarr",
        images,
        {
            "a": (None, [(1, 3.5, LEFT), (0, 2.5, RIGHT)]),
            "b": (None, []),
            "c": (None, [(2, -1.0, RIGHT)]),
        },
        classes="top2",
        score_kind="logit",
    )


@pytest.fixture
def proposals(images, tmp_path):
    """The same boxes in a and b, in another order in c, the images turned around."""
    return write_boxes(
        tmp_path / "p.zarr",
        images,
        {
            "c": [(0, 1.0, R, L)],
            "b": [(0, 1.0, L)],
            "a": [(0, 1.0, ALL, L, NEAR_L, R)],
        },
        classes="all",
    )


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_the_best_boxes_of_each_class(maps, proposals, tmp_path, suffix):
    """Dog: left 4, near it 40/11, all 2, right 0. Cat: right 3, all 1, near left -7/11, left -1.

    Left and all overlap by half, left and near left by 10 / 11, near left and right by 2 / 40.
    """
    output = tmp_path / f"r{suffix}"
    rank_boxes(maps, boxes=proposals, aggregate="mean", nms=0.5, keep=2, output=output)
    found = arrays(output)
    assert found["box"].tolist() == [[*L], [*ALL], [*R], [*ALL], [*R], [*L]]
    np.testing.assert_allclose(found["box_score"], [4, 2, 3, 1, 3, -1])
    assert found["box_score"].dtype == np.float32
    assert found["box_start"].tolist() == [0, 4, 4, 6]
    assert found["box_class"].tolist() == [1, 1, 0, 0, 2, 2]
    assert found["box_slot"].tolist() == [0, 0, 1, 1, 0, 0]
    assert found["map_class"].tolist() == [[1, 0], [-1, -1], [2, -1]]
    assert found["map_score"].tolist() == [[3.5, 2.5], [-np.inf] * 2, [-1, -np.inf]]
    assert found["class_name"].tolist() == CLASSES
    assert found["image_id"].tolist() == ["a", "b", "c"]
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        about = {k: store.attributes[k] for k in ("box_score_kind", "classes", "score_kind")}
        assert set(store.meta["inputs"]) == {"maps", "images", "boxes"}
    assert about == {"box_score_kind": "heat", "classes": "top2", "score_kind": "logit"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"aggregate": "mean", "nms": 0.49}, [L, R]),  # what overlaps the left by half goes, too
        ({"aggregate": "mean", "nms": 0.5}, [L, ALL, R]),
        ({"aggregate": "mean", "nms": 1}, [L, NEAR_L, ALL, R]),
        ({"aggregate": "mean", "nms": 1, "keep": 1}, [L]),
        ({"aggregate": "max", "nms": 1}, [ALL, L, NEAR_L, R]),  # equals in their order
        ({"aggregate": "contrast", "nms": 1}, [L, NEAR_L, ALL, R]),
        ({"threshold": 0, "nms": 1}, [ALL, L, NEAR_L, R]),  # 4, 4, 4, 0
        ({"nms": 1}, [L, NEAR_L, ALL, R]),  # 4 - .4, less .04, less .4; -.4
        ({}, [L, R]),
    ],
)
def test_options(maps, proposals, options, expected):
    found = arrays(rank_boxes(maps, boxes=proposals, **options))
    dog = found["box"][: found["box_start"][1]][found["box_slot"][: found["box_start"][1]] == 0]
    assert dog.tolist() == [list(box) for box in expected]


def test_class_scores(maps, proposals):
    """The best box stands first; every box of a class has its score."""
    found = arrays(rank_boxes(maps, boxes=proposals, keep=2, nms=0.5, box_score="class"))
    assert found["box"][:2].tolist() == [[*L], [*ALL]]
    assert found["box_score"].tolist() == [3.5, 3.5, 2.5, 2.5, -1, -1]


def test_boxes_of_the_same_class_alone(images, maps, tmp_path):
    """By name: the detector has its classes in another order, and one more."""
    detected = write_boxes(
        tmp_path / "d.zarr",
        images,
        {"a": [(2, 1.0, L), (0, 1.0, R)], "b": [], "c": [(1, 1.0, R)]},
    )
    renamed = rewritten(
        tmp_path / "other.zarr", detected, "boxes", class_name=["cat", "fly", "dog"]
    )
    found = arrays(rank_boxes(maps, boxes=renamed, same_class=True))
    assert found["box"].tolist() == [[*L], [*R]]
    assert found["box_class"].tolist() == [1, 0]
    assert found["box_start"].tolist() == [0, 2, 2, 2]
    any_class = arrays(rank_boxes(maps, boxes=renamed, output=tmp_path / "any.zarr"))
    assert np.diff(any_class["box_start"]).tolist() == [4, 0, 1]
    own = rank_boxes(maps, boxes=detected, same_class=True, output=tmp_path / "own.zarr")
    assert arrays(own)["box"].tolist() == [[*R]]  # a: a cow that has no map, a cat; c: a dog
    strange = rewritten(tmp_path / "no.zarr", detected, "boxes", class_name=["ox", "fly", "bee"])
    message = (
        'no.zarr: none of its classes ("ox", …) is one of m.zarr; expected the same names. Leave '
        "--same-class out."
    )
    with pytest.raises(ProtocolError, match=f"^{re.escape(message)}$"):
        rank_boxes(maps, boxes=strange, same_class=True, output=tmp_path / "n.zarr")


def test_a_box_beside_the_map_is_left_out(images, proposals, tmp_path):
    """A centre crop that shows the right half alone."""
    maps = write_maps(tmp_path / "m.zarr", images, {"a": ((20, 0, 40, 20), [(1, 1.0, LEFT)])})
    found = arrays(rank_boxes(maps, boxes=proposals, aggregate="mean", nms=1))
    assert found["box"].tolist() == [[*NEAR_L], [*ALL], [*R]]  # by the part of it that is seen
    assert found["box_score"].tolist() == [4, 2, 2]


def test_images_in_another_order_and_fewer_of_them(maps, proposals, tmp_path):
    """Joined by id. With --limit only those of the first rows need be there."""
    few = rank_boxes(maps, boxes=proposals, keep=1, limit=1, output=tmp_path / "few.zarr")
    assert arrays(few)["box"].tolist() == [[*L], [*R]]
    assert meta(few)["limit"] == {"how": "limit", "num_rows": 1, "of": 3}


def test_an_image_without_row(images, maps, tmp_path):
    lacking = write_boxes(tmp_path / "p.zarr", images, {"a": [(0, 1.0, L)], "b": []})
    rank_boxes(maps, boxes=lacking, limit=2, output=tmp_path / "few.zarr")
    with pytest.raises(
        LineageError,
        match=r'^p\.zarr: has no image "c" of m\.zarr\. Give boxes of the same images with --boxes',
    ):
        rank_boxes(maps, boxes=lacking)


def test_another_picture_of_the_same_name(maps, proposals, tmp_path):
    size = np.array([[40, 20], [40, 20], [20, 40]], np.int32)
    other = rewritten(tmp_path / "o.zarr", proposals, "boxes", image_size=size)
    with pytest.raises(
        ProtocolError,
        match=r'^o\.zarr: row 2 "a" is 20x40 px, 40x20 px in m\.zarr; expected the same pictures',
    ):
        rank_boxes(maps, boxes=other)


def test_what_the_boxes_skipped_is_skipped(maps, proposals, tmp_path):
    status = np.array([0, 0, 1], np.uint8)
    other = rewritten(
        tmp_path / "o.zarr", proposals, "boxes", image_status=status, image_note=["", "", "torn"],
        image_size=np.array([[40, 20], [40, 20], [0, 0]], np.int32),
    )  # fmt: skip
    found = arrays(rank_boxes(maps, boxes=other))
    assert found["image_status"].tolist() == [2, 0, 0]
    assert found["image_note"].tolist() == ["torn", "", ""]
    assert found["map_class"].tolist() == [[-1, -1], [-1, -1], [2, -1]]
    assert found["box_start"].tolist() == [0, 0, 0, 2]
    assert found["image_size"].tolist() == [[40, 20]] * 3


@pytest.mark.parametrize(
    ("cells", "box", "told"),
    [
        ([[np.nan, 1]], L, "map has 1 values that are not finite (nan); expected finite scores."),
        (LEFT, (0, 0, np.inf, 1), "box 0 is 0 0 inf 1; expected finite x0 <= x1 and y0 <= y1."),
        ([[3e38, 3e38]], ALL, "a box is worth 5.4e+38, which float32 cannot hold."),
    ],
)
def test_a_bad_image(images, tmp_path, cells, box, told):
    maps = write_maps(
        tmp_path / "m.zarr",
        images,
        {"a": (None, [(0, 1.0, LEFT)]), "b": (None, [(1, 1.0, cells)])},
    )
    given = write_boxes(tmp_path / "p.zarr", images, {"a": [(0, 1.0, R)], "b": [(0, 1.0, box)]})
    line = f'm.zarr row 1 "b": {told}'
    with pytest.raises(BadImageError, match=f"^{re.escape(line)} Pass --on-bad skip"):
        rank_boxes(maps, boxes=given, aggregate="sum")
    ears = Ears()
    found = arrays(rank_boxes(maps, boxes=given, aggregate="sum", on_bad="skip", report=ears))
    assert ears.warnings == [f"{line} Left out."]
    assert found["image_status"].tolist() == [0, 1]
    assert found["box_start"].tolist() == [0, 1, 1]
    assert found["map_class"].tolist() == [[0], [-1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"aggregate": "median"},
            '--aggregate must be sum, mean, max or contrast, got "median".',
        ),
        ({"threshold": 1.0}, "--threshold must be in [0, 1), got 1.0."),
        (
            {"threshold": 0.3, "aggregate": "mean"},
            "--threshold 0.3 is only read with --aggregate sum. Leave it out.",
        ),
        ({"keep": 0}, "--keep must be in [1, 1048576], got 0."),
        ({"nms": 1.5}, "--nms must be in [0, 1], got 1.5."),
        ({"nms": float("nan")}, "--nms must be in [0, 1], got nan."),
        ({"box_score": "rank"}, '--box-score must be heat or class, got "rank".'),
    ],
)
def test_wrong_options_are_told_before_anything_is_claimed(maps, proposals, options, message):
    ears = Ears()
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        rank_boxes(maps, boxes=proposals, report=ears, **options)
    assert ears.announced == []


def test_other_kinds(images, maps, proposals):
    with pytest.raises(
        StoreKindError, match=r'^s\.zarr: kind is "images", but rank-boxes reads "maps"'
    ):
        rank_boxes(images, boxes=proposals)
    with pytest.raises(
        StoreKindError, match=r'^m\.zarr: kind is "maps", but rank-boxes --boxes reads "boxes"'
    ):
        rank_boxes(maps, boxes=maps)


@pytest.mark.parametrize(("keep", "expected"), [(1, 200 / 3), (2, 250 / 3)])
def test_scored(maps, proposals, keep, expected):
    """The cow is where her map is cold: only her second box finds her."""
    ranked = rank_boxes(maps, boxes=proposals, keep=keep, nms=0.5)
    (found,) = score(ranked, protocol="voc-ap")["results"]
    assert found["value"] == pytest.approx(expected)


@pytest.fixture
def many(tmp_path):
    """300 images of different sizes: two blocks; the boxes in another order."""
    rng = np.random.default_rng(5)
    listed = {f"{n:03}": {"size": (20 + n % 7, 30 - n % 5)} for n in range(300)}
    images = write_images(tmp_path / "many.zarr", listed, CLASSES)
    cells = {
        name: (None, [(k, -float(k), rng.normal(size=(5, 6))) for k in range(n % 3)])
        for n, name in enumerate(listed)
    }
    boxes = {}
    for n in rng.permutation(300).tolist():
        corner = rng.integers(0, 20, (n % 9, 2, 2))
        low, high = corner.min(axis=1), corner.max(axis=1) + 1
        boxes[f"{n:03}"] = [(0, 1.0, *map(tuple, np.concatenate([low, high], axis=1).tolist()))]
    maps = write_maps(tmp_path / "many.cam.zarr", images, cells)
    return maps, write_boxes(tmp_path / "many.p.zarr", images, boxes)


def test_equal_bytes_whatever_shards_and_container(many, tmp_path):
    maps, given = many
    whole = rank_boxes(maps, boxes=given, aggregate="contrast", output=tmp_path / "whole.h5")
    for shard in ("1/2", "0/2"):
        rank_boxes(
            maps, boxes=given, aggregate="contrast", output=tmp_path / "shared.zarr", shard=shard
        )
    assert meta(whole)["digest"] == meta(tmp_path / "shared.zarr")["digest"]
    assert_equal_arrays(whole, tmp_path / "shared.zarr")


def test_the_stage_is_its_core_on_every_row(many):
    maps, given = many
    found, cells, boxes = (arrays(one) for one in (rank_boxes(maps, boxes=given), maps, given))
    row_of = {name: row for row, name in enumerate(boxes["image_id"].tolist())}
    expected = []
    for n, name in enumerate(cells["image_id"].tolist()):
        box = boxes["box"][slice(*boxes["box_start"][row_of[name] :][:2])]
        for slot in np.flatnonzero(cells["map_class"][n] >= 0):
            value = aggregate_in_boxes(
                cells["map"][n, slot][None],
                cells["map_extent"][n],
                cells["image_size"][n],
                box,
                "sum",
                threshold=0.1,
            )[0].astype(np.float32)
            seen = ~np.isnan(value)
            expected += box[seen][
                suppress_overlaps(box[seen], value[seen], iou=0.1, most=10)
            ].tolist()
    assert found["box"].tolist() == expected
