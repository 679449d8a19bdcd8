import numpy as np
import pytest
from PIL import Image

from wsltool.errors import LineageError, ProtocolError, StoreCorruptError, StoreKindError
from wsltool.stages import label_oracle
from wsltool.stages.label import label
from wsltool.stages.label_oracle import count_shares, rows_in_truth
from wsltool.stages.report import Reporter
from wsltool.stores.labels import read_labels
from wsltool.stores.open import open_store

from .cluster_scene import BOXES, CELLS, CLASSES, SHARES, scene, scene_features
from .making import Ears, arrays, rewritten, write_images, write_store


def shares(clusters, features, truth, use="boxes"):
    with open_store(clusters) as a, open_store(features) as b, open_store(truth) as c:
        counts = count_shares(a, b, c, rows_in_truth(a, b, c), use, Reporter())
    return list(zip(*(count_Q.tolist() for count_Q in counts), strict=True))


def words(path):
    return {one.class_name: one.words for one in read_labels(path).classes}


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_shares_by_hand(tmp_path, suffix):
    truth, features, clusters = scene(tmp_path, suffix)
    assert shares(clusters, features, truth) == SHARES


@pytest.mark.parametrize("piece_bytes", [1, 8 * 4 * 4, 8 * 4 * 7])
def test_shares_do_not_depend_on_the_pieces(tmp_path, monkeypatch, piece_bytes):
    truth, features, clusters = scene(tmp_path)
    monkeypatch.setattr(label_oracle, "_PIECE_BYTES", piece_bytes)
    assert shares(clusters, features, truth) == SHARES


def test_the_oracle_writes_labels(tmp_path):
    truth, _, clusters = scene(tmp_path)
    ears = Ears()
    output = label(clusters, oracle=truth, report=ears)
    assert words(output) == {"car": ("object",) * 3, "dog": ("object", "distractor")}
    found = read_labels(output)
    assert found.annotator == "oracle boxes"
    assert [one.answered for one in found.classes] == [None, None]
    params = {"oracle": "truth", "oracle_from": "boxes", "oracle_rule": "mean", "seed": None}
    assert found.made["params"] == params
    assert sorted(found.made["inputs"]) == ["clusters", "features", "truth"]
    assert ears.warnings == [
        "truth.zarr: classes without true boxes where they fire, which stay unlabelled: 1 (cat)."
    ]
    assert ears.notes == [
        f"{output}: 2 of 3 classes labelled by oracle boxes, 1 with a distractor."
    ]
    before = output.read_bytes()
    label(clusters, oracle=truth)
    assert output.read_bytes() == before


def _masked(folder, source, masks, name="masked.zarr", **changes):
    """Truth with mask files: id to a list of (class, or -1 for a label image, array)."""
    values = {
        key: value.tolist() if value.dtype.kind == "T" else value
        for key, value in arrays(source).items()
        if not key.startswith("box")
    }
    listed = [masks.get(one, []) for one in values["image_id"]]
    paths, classes = [], []
    for image_id, of_image in zip(values["image_id"], listed, strict=True):
        for index, mask in of_image:
            path = f"mask {image_id} {index}.png"
            Image.fromarray(mask).save(folder / path)
            paths.append(path)
            classes.append(index)
    values |= {
        "mask_start": [len(of_image) for of_image in listed],
        "mask_path": paths,
        "mask_class": np.array(classes, np.int32),
    }
    return write_store(folder / name, "images", values | changes, root=".")


def _box_mask(label_of):
    """A label image of 40 x 20 pixels with boxes (x0, y0, x1, y1) painted in."""
    mask = np.zeros((20, 40), np.uint8)
    for value, (x0, y0, x1, y1) in label_of:
        mask[y0:y1, x0:x1] = value
    return mask


def test_masks(tmp_path):
    truth, features, clusters = scene(tmp_path)
    masks = {
        # dog is 1, car 2; the cell at row 1, column 1 (grass of both) is left out
        "a": [
            (-1, _box_mask([(1, (0, 0, 20, 10)), (2, (20, 10, 40, 20)), (255, (10, 10, 20, 20))]))
        ],
        "c": [(1, _box_mask([(255, (0, 0, 10, 10))]))],
    }
    masked = _masked(tmp_path, truth, masks)
    assert shares(clusters, features, masked, "masks") == [
        (2, 2), (0, 1), (1, 2), (1, 2), (0, 1), (0, 0), (0, 0),
    ]  # fmt: skip
    output = label(clusters, oracle=masked)
    assert read_labels(output).annotator == "oracle masks"
    assert words(output) == {
        "car": ("object", "object", "distractor"),
        "dog": ("object", "distractor"),
    }


def test_boxes_where_there_are_both_unless_asked(tmp_path):
    truth, _, clusters = scene(tmp_path)
    boxed = arrays(truth)
    both = _masked(
        tmp_path,
        truth,
        {"a": [(-1, _box_mask([(1, (0, 0, 20, 20))]))]},
        box_start=np.diff(boxed["box_start"]),
        box=boxed["box"],
        box_class=boxed["box_class"],
    )
    assert read_labels(label(clusters, oracle=both)).annotator == "oracle boxes"
    output = label(clusters, oracle=both, oracle_from="masks", output=tmp_path / "m.json")
    assert words(output) == {"dog": ("object", "object")}


def test_a_truth_without_what_is_asked(tmp_path):
    truth, _, clusters = scene(tmp_path)
    with pytest.raises(StoreKindError) as caught:
        label(clusters, oracle=truth, oracle_from="masks")
    assert str(caught.value) == (
        "truth.zarr: has no true masks, by which label --oracle judges. Ingest the images with "
        "their annotations."
    )
    bare = write_images(tmp_path / "bare.zarr", BOXES, CLASSES, size=(40, 20), boxes=False)
    with pytest.raises(StoreKindError, match=r"^bare\.zarr: has neither true boxes nor true masks"):
        label(clusters, oracle=bare)


def test_a_crowd_is_not_counted(tmp_path):
    truth, features, clusters = scene(tmp_path)
    boxes = arrays(truth)["box_class"]
    crowd = rewritten(
        tmp_path / "crowd.zarr",
        truth,
        "images",
        box=np.array([[0, 0, 10, 10], [10, 10, 20, 20], [30, 0, 40, 10], [0, 0, 20, 10.0]]),
        box_class=np.array([0, 0, 0, 1], np.int32),
        box_crowd=np.array([0, 1, 1, 0], np.uint8),
    )
    assert boxes.tolist() == [0, 1, 0, 1]
    # a: grass at (1, 1) lies in the crowd alone; b has a crowd and no box, so it says nothing
    assert shares(clusters, features, crowd)[:2] == [(1, 2), (0, 1)]


def test_cells_are_looked_up_in_the_part_that_the_grid_covers(tmp_path):
    truth, _, clusters = scene(tmp_path)
    # A letterbox: rows of cells are 20 px high, their centres at y -5 and 15 … of 20 px.
    boxed = scene_features(tmp_path / "boxed.zarr", truth, extent=(0, -15, 40, 25))
    by_class = {"a": {"boxes": [(0, 0, 0, 40, 20)]}, "c": {"boxes": [(1, 0, 0, 40, 20)]}}
    whole = write_images(tmp_path / "whole.zarr", BOXES | by_class, CLASSES, size=(40, 20))
    # dog in a: its two cells have centres at y -5, outside the picture; grass at y 15, inside.
    assert shares(clusters, boxed, whole)[:2] == [(0, 3), (2, 3)]


def test_images_in_another_order_or_absent(tmp_path):
    _, features, clusters = scene(tmp_path)
    turned = dict(reversed(BOXES.items()))
    other = write_images(tmp_path / "turned.zarr", turned, CLASSES, size=(40, 20))
    assert shares(clusters, features, other) == SHARES
    del turned["a"]
    less = write_images(tmp_path / "less.zarr", turned, CLASSES, size=(40, 20))
    assert shares(clusters, features, less) == [
        (1, 1), (0, 1), (2, 2), (0, 1), (0, 1), (0, 0), (0, 0),
    ]  # fmt: skip


def test_stores_that_do_not_belong_together(tmp_path):
    truth, features, clusters = scene(tmp_path)
    foreign = write_images(tmp_path / "foreign.zarr", {"x": BOXES["a"]}, CLASSES, size=(40, 20))
    with pytest.raises(ProtocolError, match=r"^foreign\.zarr: holds none of the 5 images of found"):
        label(clusters, oracle=foreign)
    others = write_images(tmp_path / "others.zarr", BOXES, ["a", "b", "c", "d"], size=(40, 20))
    with pytest.raises(ProtocolError) as caught:
        label(clusters, oracle=others)
    assert str(caught.value) == (
        "others.zarr: has other classes than parts.zarr (4: a, b, c, … and 4: dog, car, idle, …). "
        "Give the stores that it was made from."
    )
    empty = write_images(
        tmp_path / "empty.zarr", {name: {} for name in CELLS}, CLASSES, size=(40, 20)
    )
    with pytest.raises(ProtocolError, match=r"^empty\.zarr: no image has true boxes of a class"):
        label(clusters, oracle=empty)
    narrow = scene_features(
        tmp_path / "narrow.zarr", truth, feature=arrays(features)["feature"][:, :3]
    )
    with pytest.raises(
        ProtocolError, match=r"^narrow\.zarr: has 3 channels, the centroids of part"
    ):
        label(clusters, oracle=truth, features=narrow)
    silent = scene_features(tmp_path / "s.zarr", truth, pattern_cell=None, pattern_class=None)
    with pytest.raises(StoreKindError, match=r"^s\.zarr: does not say which cells stand for which"):
        label(clusters, oracle=truth, features=silent)
    assert not list(tmp_path.glob("*.json"))


def test_features_that_moved(tmp_path):
    truth, features, clusters = scene(tmp_path)
    features.rename(tmp_path / "moved.zarr")
    with pytest.raises(
        LineageError, match=r"its features found\.zarr is not there\. Say where wit"
    ):
        label(clusters, oracle=truth)
    output = label(clusters, oracle=truth, features=tmp_path / "moved.zarr")
    assert words(output)["dog"] == ("object", "distractor")


def test_what_cannot_be_used_is_told_in_one_line(tmp_path):
    truth, features, clusters = scene(tmp_path)
    feature = arrays(features)["feature"]
    feature[4, 1] = np.nan
    broken = scene_features(tmp_path / "nan.zarr", truth, feature=feature)
    with pytest.raises(StoreCorruptError) as caught:
        label(clusters, oracle=truth, features=broken)
    assert str(caught.value) == (
        "nan.zarr row 0: features of 1 cells from here on are not finite; expected finite "
        "activations. Make it again."
    )
    flat = scene_features(tmp_path / "flat.zarr", truth, extent=(0, 0, 0, 20))
    with pytest.raises(
        StoreCorruptError, match=r"^flat\.zarr row 0: map_extent is 0 0 0 20; expec"
    ):
        label(clusters, oracle=truth, features=flat)
    masked = _masked(tmp_path, truth, {"a": [(-1, np.zeros((4, 4), np.uint8))]})
    with pytest.raises(StoreCorruptError, match=r"^masked\.zarr row 0: mask mask a -1\.png is 4x4"):
        label(clusters, oracle=masked)


def test_the_rule_keeps_the_class_whose_masks_are_all_small(tmp_path):
    """Under half of the cells of every cluster of car lie in its masks; not all are distractors."""
    _, features, clusters = scene(tmp_path)
    tight = {"a": {"boxes": [(1, 20, 10, 30, 20)]}, "c": {"boxes": [(1, 0, 0, 8, 8)]}}
    images = write_images(tmp_path / "tight.zarr", BOXES | tight, CLASSES, size=(40, 20))
    assert shares(clusters, features, images)[2:5] == [(1, 2), (1, 2), (0, 2)]
    output = label(clusters, oracle=images)
    assert words(output)["car"] == ("object", "object", "distractor")
