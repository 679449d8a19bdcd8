"""Maps of several networks become one store: hand-worked, in both containers, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import BadImageError, ProtocolError, StoreKindError, UsageError
from wsltool.stages.boxes import boxes
from wsltool.stages.merge import merge
from wsltool.stages.score import score
from wsltool.stages.verify import verify
from wsltool.stores.open import open_store

from .making import (
    Ears,
    arrays,
    assert_equal_arrays,
    meta,
    write_images,
    write_maps,
    write_store,
)

CLASSES = ["cat", "dog", "cow"]
HALF, QUARTER = 0.5, 0.25


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "s.zarr", {"a": {}, "b": {}, "c": {}}, CLASSES, size=(40, 20))


def row(*values):
    return np.array([values], np.float32)


def put(path, images, slots, **more):
    """A maps store whose class scores are those of its slots."""
    return write_maps(path, images, slots, **({"score_kind": "probability"} | more))


def changed(path, output, **values):
    """The same store with other arrays, or with further attributes."""
    with open_store(path) as store:
        held = {name: store.whole(name) for name in store.names}
        attributes = {k: v for k, v in store.attributes.items() if k != "wsltool"}
        held |= {name: value for name, value in values.items() if not isinstance(value, str)}
        attributes |= {name: value for name, value in values.items() if isinstance(value, str)}
    text = {n: [str(v) for v in held[n].tolist()] for n in held if held[n].dtype.kind == "T"}
    return write_store(output, "maps", held | text, **attributes)


@pytest.fixture
def two(images, tmp_path):
    """Both have dogs in a; only the first has a cat in b, only the second a cow."""
    one = {
        "a": (None, [(1, HALF, row(2, -4, 0))]),
        "b": (None, [(0, HALF, row(1, 2, 3))]),
        "c": (None, []),
    }
    other = {
        "a": (None, [(1, QUARTER, row(8, -4, -1))]),
        "b": (None, [(2, 1, row(5, 6, 7))]),
        "c": (None, []),
    }
    return put(tmp_path / "one.zarr", images, one), put(tmp_path / "two.zarr", images, other)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_weighted_map_voting_by_hand(two, tmp_path, suffix):
    """Kim et al. 2017, eq. 5; a class that only one store has is taken from that one."""
    output = merge(*two, output=tmp_path / f"m{suffix}")
    found = arrays(output)
    assert found["map_class"].tolist() == [[1, -1], [2, 0], [-1, -1]]
    assert found["map"][0, 0].tolist() == [[2, -1, 0]]
    assert found["map"][1].tolist() == [[[5, 6, 7]], [[0.5, 1, 1.5]]]
    assert found["map_score"].tolist() == [[HALF, -np.inf], [1, HALF], [-np.inf] * 2]
    assert found["class_score"].tolist() == [[0, HALF, 0], [HALF, 0, 1], [0, 0, 0]]
    assert found["map_extent"].tolist() == [[0, 0, 40, 20]] * 3
    assert found["image_status"].tolist() == [0, 0, 0]
    assert found["map"].dtype == found["map_score"].dtype == np.float32
    assert "map_grid" not in found
    assert "suppressed" not in found
    assert verify(output)["problems"] == []
    with open_store(output) as store:
        assert store.attributes["classes"] == "all"
        assert store.attributes["score_kind"] == "probability"


def test_the_name_and_what_is_recorded(two, tmp_path):
    output = merge(*two, how="max")
    assert output == tmp_path / "one.merge.zarr"
    about = meta(output)
    assert about["params"] == {"how": "max", "probability": []}
    assert {role: record["path"] for role, record in about["inputs"].items()} == {
        "maps": "one.zarr",
        "maps_2": "two.zarr",
        "images": "s.zarr",
    }
    stamp = output.stat().st_mtime_ns
    ears = Ears()
    assert merge(*two, how="max", report=ears) == output
    assert ears.notes == [f"{output}: finished already, left alone."]
    assert output.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match=r"made with --how max, now weighted-max\. Pass -o"):
        merge(*two)


def test_boxes_and_scores_of_merged_maps_find_their_truth(tmp_path):
    images = write_images(
        tmp_path / "s.zarr", {"a": {"boxes": [(0, 0, 0, 20, 20)]}}, CLASSES, size=(40, 20)
    )
    one = put(tmp_path / "one.zarr", images, {"a": (None, [(0, 1, row(1, 0, 0, 0))])})
    two = put(tmp_path / "two.zarr", images, {"a": (None, [(0, 1, row(0, 1, 0, 0))])})
    drawn = arrays(boxes(merge(one, two), threshold=0.6))
    assert drawn["box"].tolist() == [[0, 0, 19, 20]]  # 60 % is at x = 19
    result = score(merge(one, two), protocol="peak-in-box")
    assert result["results"][0]["value"] == 100


def test_a_mean_of_three(images, tmp_path):
    paths = []
    for n, (chance, values) in enumerate([(0.3, (3, 0)), (0.6, (6, -3)), (0.9, (0, 0))]):
        slots = {"a": (None, [(0, chance, row(*values)), (2, -1, row(n, n))])}
        paths.append(put(tmp_path / f"m{n}.zarr", images, slots, score_kind="logit"))
    found = arrays(merge(*paths, how="mean"))
    assert found["map_class"].tolist() == [[0, 2]]
    np.testing.assert_allclose(found["map"][0], [[[3, -1]], [[1, 1]]])
    np.testing.assert_allclose(found["class_score"], [[0.6, 0, -1]], rtol=1e-6)
    again = arrays(merge(*paths[::-1], how="mean"))
    for name in ("map", "map_class", "class_score"):
        np.testing.assert_allclose(again[name], found[name], rtol=1e-6)


@pytest.mark.parametrize("how", ["weighted-max", "max"])
def test_the_order_of_the_inputs_does_not_matter_to_the_maximum(two, tmp_path, how):
    merged = merge(*two, how=how, output=tmp_path / "m.zarr")
    again = merge(*two[::-1], how=how, output=tmp_path / "n.zarr")
    assert_equal_arrays(merged, again)


def test_logits_become_probabilities_as_asked_for(images, tmp_path):
    three = float(np.log(3))
    slots = [(0, three, row(1)), (1, 0, row(1)), (2, -np.inf, row(1))]
    one = put(tmp_path / "one.zarr", images, {"a": (None, slots[:2])}, score_kind="logit")
    one = changed(one, tmp_path / "o.zarr", class_score=np.array([[three, 0, -np.inf]], np.float32))
    two = put(tmp_path / "t.zarr", images, {"a": (None, [(0, -60, row(-1))])}, score_kind="logit")
    for probability, wanted in (("sigmoid", [0.75, 0.5]), ("softmax", [0.75, 0.25])):
        found = arrays(merge(one, two, probability=probability, overwrite=True))
        np.testing.assert_allclose(found["map"][0, :, 0, 0], wanted)
        assert found["map_class"].tolist() == [[0, 1]]
        np.testing.assert_allclose(found["class_score"], [[three, 0, 0]], rtol=1e-6)
        with open_store(tmp_path / "o.merge.zarr") as store:
            assert store.attributes["score_kind"] == "logit"


def test_a_store_may_record_what_its_probability_is(images, tmp_path):
    slots = {"a": (None, [(0, 0, row(1))])}
    more = {"score_kind": "logit", "probability": "sigmoid"}
    one, two = (put(tmp_path / f"{n}.zarr", images, slots, **more) for n in "ab")
    output = merge(one, two)
    assert arrays(output)["map"].item() == 0.5
    assert meta(output)["params"]["probability"] == ["sigmoid", "sigmoid"]
    more["probability"] = "softmax"
    one, two = (put(tmp_path / f"{n}.h5", images, slots, **more) for n in "ab")
    np.testing.assert_allclose(arrays(merge(one, two))["map"].item(), 1 / 3)


def test_the_model_file_tells(tmp_path, images):
    """Files of the same weights that say softmax or logistic, found by their digest."""
    from wsltool.nets.initial import start_network
    from wsltool.nets.models import Model, save_model
    from wsltool.nets.preprocess import Preprocess
    from wsltool.nets.weights import file_sha256

    paths = []
    for loss, num in (("logistic", 3), ("softmax", 3), ("softmax", 4)):
        network = start_network("small_gap", num, init="none", seed=1).network.eval()
        file = tmp_path / f"{loss}{num}.safetensors"
        model = Model(network, "small_gap", None, None, Preprocess(48), loss, "")
        save_model(file, model, {})
        record = {"path": file.name, "kind": "model", "digest": file_sha256(file)}
        path = put(
            tmp_path / f"{file.stem}.h5",
            images,
            {"a": (None, [(0, 0, row(6))])},
            score_kind="logit",
        )
        _record(path, record)
        paths.append(path)
    output = merge(*paths[:2])
    assert meta(output)["params"]["probability"] == ["sigmoid", "softmax"]
    assert arrays(output)["map"].item() == 3  # max(6 / 2, 6 / 3)
    with pytest.raises(
        ProtocolError,
        match=r"^softmax4\.h5: holds logits of 3 of its model's 4 classes, so their softmax is n",
    ):
        merge(paths[0], paths[2], output=tmp_path / "n.zarr")
    (tmp_path / "logistic3.safetensors").write_bytes(b"another file")
    with pytest.raises(
        ProtocolError, match=r"^logistic3\.h5: holds logits, and its model file is not at hand"
    ):
        merge(*paths[:2], output=tmp_path / "n.zarr")


def test_scores_of_which_nothing_is_known(images, tmp_path):
    slots = {"a": (None, [(0, 0, row(6))])}
    one, two = (
        put(tmp_path / f"{name}.zarr", images, slots, score_kind="unknown") for name in "mn"
    )
    with pytest.raises(
        ProtocolError, match=r"^m\.zarr: does not say what its class scores are, and weighted-max n"
    ):
        merge(one, two)
    assert meta(merge(one, two, probability="softmax"))["params"]["probability"] == ["softmax"] * 2
    merge(one, two, how="max", output=tmp_path / "max.zarr")


def _record(path, record):
    """Let a store say that it was made with a model."""
    import json

    import h5py

    with h5py.File(path, "a") as file:
        about = json.loads(file.attrs["wsltool"])
        about["inputs"]["model"] = record
        file.attrs["wsltool"] = json.dumps(about)


# Grids


def test_grids_that_differ_come_to_the_finest(images, tmp_path):
    """Two cells against four over the same 40 px: 0 and 4 are 0, 1, 3, 4 on the finer one."""
    one = put(tmp_path / "one.zarr", images, {"a": (None, [(0, 1, row(0, 4))])})
    two = put(tmp_path / "two.zarr", images, {"a": (None, [(0, HALF, row(4, 0, 0, 10))])})
    found = arrays(merge(one, two))
    np.testing.assert_allclose(found["map"][0, 0], [[2, 1, 3, 5]])
    assert found["map_grid"].tolist() == [[1, 4]]
    found = arrays(merge(two, one, how="mean"))
    np.testing.assert_allclose(found["map"][0, 0], [[2, 0.5, 1.5, 7]])


def test_extents_that_differ(images, tmp_path):
    """The finest input saw the middle half: only its cells are left, the other fits them."""
    one = put(tmp_path / "one.zarr", images, {"a": (None, [(0, 1, row(0, 4))])})
    two = put(tmp_path / "two.zarr", images, {"a": ((10, 0, 30, 20), [(0, 1, row(0, 0, 0, 0))])})
    found = arrays(merge(one, two, how="max"))
    assert found["map_extent"].tolist() == [[10, 0, 30, 20]]
    np.testing.assert_allclose(found["map"][0, 0], [[0.5, 1.5, 2.5, 3.5]])


def test_a_cell_that_nobody_saw_gets_the_floor(images, tmp_path):
    """The finer input covers the image and has no cat; the other saw the right half."""
    one = put(tmp_path / "one.zarr", images, {"a": (None, [(1, 1, row(1, 1, 1, 1))])})
    two = put(tmp_path / "two.zarr", images, {"a": ((20, 0, 40, 20), [(0, HALF, row(4))])})
    output = merge(one, two)
    found = arrays(output)
    assert found["map_class"].tolist() == [[1, 0]]
    assert found["map"][0, 1].tolist() == [[0, 0, 2, 2]]
    assert verify(output)["problems"] == []


def test_grids_that_differ_from_image_to_image(images, tmp_path):
    slots = {
        "a": (None, [(0, 1, row(1, 2))]),
        "b": (None, [(0, 1, row(1, 2, 3))]),
    }
    grids = np.array([[1, 2], [1, 3]], np.int32)
    one = put(tmp_path / "one.zarr", images, slots, map_grid=grids)
    two = put(tmp_path / "two.zarr", images, slots, map_grid=grids)
    found = arrays(merge(one, two, how="mean"))
    assert found["map_grid"].tolist() == grids.tolist()
    assert found["map"][:, 0, 0].tolist() == [[1, 2, 0], [1, 2, 3]]


def test_suppressed_cells_have_no_say(images, tmp_path):
    slots = {"a": (None, [(0, 1, row(-2, -2, 1))])}
    gone = [np.array([[[[1, 1, 0]]]], np.uint8), np.array([[[[1, 0, 0]]]], np.uint8)]
    paths = [
        put(tmp_path / f"{n}.zarr", images, slots, suppressed=one) for n, one in enumerate(gone)
    ]
    output = merge(*paths, how="mean")
    found = arrays(output)
    assert found["map"].tolist() == [[[[-2, -2, 1]]]]
    assert found["suppressed"].tolist() == [[[[1, 0, 0]]]]
    assert verify(output)["problems"] == []


def test_float16_stays_where_all_are(images, tmp_path):
    slots = {"a": (None, [(0, 1, row(1, 2))])}
    half = [put(tmp_path / f"{n}.zarr", images, slots, dtype=np.float16) for n in "ab"]
    whole = put(tmp_path / "c.zarr", images, slots)
    assert arrays(merge(*half))["map"].dtype == np.float16
    assert arrays(merge(whole, *half))["map"].dtype == np.float32


# Which classes


def test_the_best_stay_the_best(images, tmp_path):
    """top1 of two networks: one map an image, of the class with the higher score."""
    one = {"a": (None, [(0, 0.5, row(1))]), "b": (None, [(1, 0.9, row(1))])}
    two = {"a": (None, [(2, 0.6, row(1))]), "b": (None, [(0, 0.8, row(1))])}
    paths = [
        put(tmp_path / f"{n}.zarr", images, slots, classes="top1")
        for n, slots in enumerate((one, two))
    ]
    found = arrays(merge(*paths))
    assert found["map_class"].tolist() == [[2], [1]]
    more = [changed(path, path.with_suffix(".h5"), classes="top1+present") for path in paths]
    assert arrays(merge(*more))["map_class"].tolist() == [[2, 0], [1, 0]]


@pytest.mark.parametrize("classes", ["top2", "above:.5", "top2+present"])
def test_a_mean_needs_every_map(images, tmp_path, classes):
    slots = {"a": (None, [(0, 1, row(1)), (1, 1, row(1))])}
    paths = [put(tmp_path / f"{n}.zarr", images, slots, classes=classes) for n in "ab"]
    with pytest.raises(ProtocolError, match=r'^a\.zarr: classes is "[^"]*", so every network ke'):
        merge(*paths, how="mean")
    assert not (tmp_path / "a.merge.zarr").exists()


@pytest.mark.parametrize("classes", ["all", "present", "top3", "", "somebody's own"])
def test_a_mean_of_what_every_input_has(images, tmp_path, classes):
    slots = {"a": (None, [(0, 1, row(1)), (1, 1, row(1))])}
    paths = [put(tmp_path / f"{n}.zarr", images, slots, classes=classes) for n in "ab"]
    assert arrays(merge(*paths, how="mean"))["map_class"].tolist() == [[0, 1]]


def test_a_map_that_lacks_of_a_mean_is_a_bad_image(two):
    with pytest.raises(
        BadImageError,
        match=r'^one\.zarr row 1 "b": not every input has a map of "cat", which a mean needs\. P',
    ):
        merge(*two, how="mean")
    ears = Ears()
    found = arrays(merge(*two, how="mean", on_bad="skip", report=ears))
    assert ears.num_skipped == 1
    assert found["image_status"].tolist() == [0, 1, 0]
    assert found["map_class"].tolist() == [[1], [-1], [-1]]
    assert found["map"][0, 0].tolist() == [[5, -4, -0.5]]


# Bad and skipped images


def test_what_any_input_skipped_is_skipped(two, tmp_path):
    note = np.array(["", "no picture", ""], np.dtypes.StringDType())
    status = np.array([0, 1, 0], np.uint8)
    gone = changed(two[1], tmp_path / "gone.zarr", image_status=status, image_note=note)
    for paths in ((two[0], gone), (gone, two[0])):
        output = merge(*paths)
        found = arrays(output)
        assert found["image_status"].tolist() == [0, 2, 0]
        assert found["image_note"].tolist() == ["", "no picture", ""]
        assert found["map_class"].tolist() == [[1], [-1], [-1]]
        assert found["class_score"][1].tolist() == [-np.inf] * 3
        assert verify(output)["problems"] == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"map": np.nan}, "bad.zarr: map has values that are not finite"),
        ({"class_score": np.nan}, "the scores of class 0 are"),
        ({"map_score": 7}, "bad.zarr: the score of class 1 is 7.0, which is no probability in"),
        ({"map_extent": 3}, "extent"),
    ],
)
def test_an_image_that_cannot_be_merged(two, tmp_path, values, line):
    held = arrays(two[1])
    for name, value in values.items():
        held[name][0] = value
    bad = changed(two[1], tmp_path / "bad.zarr", **{name: held[name] for name in values})
    with pytest.raises(BadImageError, match=rf'^one\.zarr row 0 "a": .*{line}.* Pass --on-bad'):
        merge(two[0], bad)
    ears = Ears()
    found = arrays(merge(two[0], bad, on_bad="skip", report=ears))
    assert found["image_status"].tolist() == [1, 0, 0]
    assert line in found["image_note"][0]
    assert ears.warnings[0].endswith("Left out.")


# Refusals


def test_what_cannot_be_merged(two, images, tmp_path):
    with pytest.raises(UsageError, match=r"^merge needs two maps stores or more, got 1\. Name th"):
        merge(two[0])
    with pytest.raises(UsageError, match=r"^one\.zarr is given twice; expected different stores"):
        merge(*two, two[0])
    with pytest.raises(StoreKindError, match=r'^s\.zarr: kind is "images", but merge reads "maps'):
        merge(two[0], images)
    with pytest.raises(UsageError, match=r'^--how must be weighted-max, mean or max, got "sum"'):
        merge(*two, how="sum")
    with pytest.raises(UsageError, match=r"^--probability must be recorded, sigmoid or softmax, g"):
        merge(*two, probability="x")
    with pytest.raises(UsageError, match=r"^-o .*two\.zarr: that is the maps_2 it reads\. Give"):
        merge(*two, output=two[1], overwrite=True)
    other = changed(two[1], tmp_path / "x.zarr", class_name=np.array(["a", "b", "c"], "T"))
    with pytest.raises(ProtocolError, match=r"^x\.zarr: has other classes than one\.zarr\. Give m"):
        merge(two[0], other)
    for name, value, option in (
        ("classes", "top5", "--classes"),
        ("score_kind", "logit", "--scores"),
    ):
        other = changed(two[1], tmp_path / f"{name}.zarr", **{name: value})
        line = rf'^{name}\.zarr: {name} is "{value}", "\w+" in one\.zarr; expected .* {option}\.$'
        with pytest.raises(ProtocolError, match=line):
            merge(two[0], other)


def test_other_images_are_named(two, images, tmp_path):
    text = np.array(["a", "x", "c"], np.dtypes.StringDType())
    other = changed(two[1], tmp_path / "ids.zarr", image_id=text)
    with pytest.raises(
        ProtocolError, match=r'^ids\.zarr: row 1 is "x", but "b" in one\.zarr; expected the same im'
    ):
        merge(two[0], other)
    size = np.array([[40, 20], [40, 20], [41, 20]], np.int32)
    other = changed(two[1], tmp_path / "size.zarr", image_size=size)
    with pytest.raises(
        ProtocolError, match=r'^size\.zarr: row 2 "c" is 41x20 px, 40x20 px in one\.zarr; expect'
    ):
        merge(two[0], other)


def test_stores_of_different_length(two, images, tmp_path):
    short = put(tmp_path / "short.zarr", images, {"a": (None, [(1, QUARTER, row(8, -4, -1))])})
    with pytest.raises(
        ProtocolError, match=r'^short\.zarr: row 1 is not there, but "b" in one\.zarr; expected th'
    ):
        merge(two[0], short)
    with pytest.raises(
        ProtocolError,
        match=r'^one\.zarr: row 1 is "b", but short\.zarr has 1 rows\. Make .* --limit 1\.$',
    ):
        merge(short, two[0])
    output = merge(two[0], short, limit=1)
    assert meta(output)["limit"] == {"how": "limit", "num_rows": 1, "of": 3}
    assert arrays(output)["map"][0, 0].tolist() == [[2, -1, 0]]


# Shards


def test_equal_arrays_whatever_shards_and_container(tmp_path):
    num = 600
    images = write_images(tmp_path / "s.zarr", {f"i{n:03}": {} for n in range(num)}, CLASSES)
    rng = np.random.default_rng(0)
    paths = []
    for name, grid in (("one.zarr", (3, 4)), ("two.h5", (4, 3)), ("three.zarr", (3, 3))):
        slots = {
            f"i{n:03}": (None, [(k, 0.9 - 0.1 * k, rng.normal(size=grid)) for k in range(n % 3)])
            for n in range(num)
        }
        paths.append(put(tmp_path / name, images, slots))
    whole = merge(*paths, output=tmp_path / "whole.zarr")
    shared = tmp_path / "shared.h5"
    for shard in ("2/3", "0/3", "1/3"):
        merge(*paths, output=shared, shard=shard)
    assert_equal_arrays(whole, shared)
    assert meta(whole)["digest"] == meta(shared)["digest"]
    assert verify(whole)["problems"] == []
