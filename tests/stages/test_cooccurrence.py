"""``cam --cooccurrence``: scores against eqs. 2 to 4, classes chosen by them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsltool
from wsltool.errors import ModelError, ProtocolError, UsageError
from wsltool.stages.cam import cam
from wsltool.stages.cooccurrence import read_weight
from wsltool.stages.fit_cooccurrence import fit_cooccurrence
from wsltool.stages.model_behind import given_model
from wsltool.stores.open import open_store

from .cooccurring import CLASSES, COUNT, LABELS, write_model, write_pictures
from .making import Ears, arrays, assert_equal_arrays, meta

pytestmark = pytest.mark.usefixtures("one_thread")

CPU: dict[str, Any] = {"device": "cpu", "workers": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def images(home: Path) -> Path:
    return write_pictures(home / "images.zarr")


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return write_model(home / "m.safetensors")


@pytest.fixture(scope="module")
def chance_NK(home: Path, images: Path, model: Path) -> Any:
    """The model's own probabilities."""
    options: dict[str, Any] = {"classes": "all", "scores": "probability"}
    maps = cam(images, model=model, output=home / "plain.zarr", **options, **CPU)
    return arrays(maps)["class_score"]


def combined(chance_NK: Any, alpha: float, count: Any = COUNT) -> Any:
    """Eqs. 2 to 4, one number after the other."""
    found = np.array(chance_NK, np.float64)
    for n, i, j in np.ndindex(len(found), len(count), len(count)):
        if i != j and count[j][j]:
            found[n, i] += alpha * count[i][j] / count[j][j] * chance_NK[n, j]
    return found


def test_scores_of_images_and_maps(
    images: Path, model: Path, chance_NK: Any, tmp_path: Path
) -> None:
    path = cam(
        images, model=model, classes="all", cooccurrence=0.5, output=tmp_path / "c.zarr", **CPU
    )
    found = arrays(path)
    expected_NK = combined(chance_NK, 0.5)
    np.testing.assert_allclose(found["class_score"], expected_NK, rtol=1e-6)
    assert (expected_NK > 1).any(), "the case has a score that is no probability"
    order_NK = np.argsort(-expected_NK, axis=1)
    assert found["map_class"].tolist() == order_NK.tolist()
    assert (np.diff(found["map_score"], axis=1) <= 0).all()
    rows = np.arange(len(LABELS))[:, None]
    np.testing.assert_array_equal(found["map_score"], found["class_score"][rows, order_NK])
    with open_store(path) as store:
        assert store.attributes["score_kind"] == "combined"
        assert store.attributes["cooccurrence"] == {"alpha": 0.5, "fitted_on": None}
        assert store.meta["params"]["cooccurrence"] == 0.5
        assert set(store.meta["inputs"]) == {"images", "model"}
    assert wsltool.verify(path)["problems"] == []


def test_maps_themselves_stay(images: Path, model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": model, "classes": "present"} | CPU
    plain = arrays(cam(images, output=tmp_path / "a.zarr", **options))
    other = arrays(cam(images, output=tmp_path / "b.zarr", cooccurrence=1, **options))
    for row in range(len(LABELS)):
        one, two = (
            dict(zip(m["map_class"][row], m["map"][row], strict=True)) for m in (plain, other)
        )
        assert one.keys() == two.keys()
        for index, map_HW in one.items():
            np.testing.assert_array_equal(map_HW, two[index])


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_at_0_all_is_as_without_but_the_kind(images: Path, tmp_path: Path, loss: Any) -> None:
    model = write_model(tmp_path / "m.safetensors", loss=loss)
    options: dict[str, Any] = {"model": model, "classes": "top2", "scores": "probability"} | CPU
    plain = cam(images, output=tmp_path / "a.zarr", **options)
    other = cam(images, output=tmp_path / "b.zarr", cooccurrence="0", **options)
    assert_equal_arrays(plain, other)
    with open_store(other) as store:
        assert store.attributes["score_kind"] == "combined"
        assert store.attributes["probability"] == ("sigmoid" if loss == "logistic" else "softmax")


def test_classes_are_chosen_by_the_combined_scores(
    images: Path, model: Path, chance_NK: Any, tmp_path: Path
) -> None:
    expected_NK = combined(chance_NK, 1.0)
    options: dict[str, Any] = {"model": model, "cooccurrence": 1.0} | CPU
    best = arrays(cam(images, classes="top1", output=tmp_path / "t.zarr", **options))
    assert best["map_class"][:, 0].tolist() == expected_NK.argmax(axis=1).tolist()
    assert (expected_NK.argmax(axis=1) != chance_NK.argmax(axis=1)).any(), "it matters here"
    cut = 0.9
    assert ((expected_NK > cut) & (chance_NK < cut)).any(), "here too"
    above = arrays(cam(images, classes=f"above:{cut}", output=tmp_path / "a.zarr", **options))
    for row, class_S in enumerate(above["map_class"]):
        assert set(class_S[class_S >= 0].tolist()) == set(np.flatnonzero(expected_NK[row] > cut))


def test_pairs_are_matched_as_classes_are(
    home: Path, images: Path, model: Path, chance_NK: Any, tmp_path: Path
) -> None:
    """The same network, its classes in another order, with one that the images lack."""
    names = ["tree", "chair", "person", "motorbike"]
    count = np.full((4, 4), 1)
    count[np.ix_([2, 3, 1], [2, 3, 1])] = COUNT
    count[0, 0] = 9
    other = write_model(tmp_path / "o.safetensors", classes=names, count=count)
    options: dict[str, Any] = {"model": other, "classes": "all"} | CPU
    plain = cam(images, scores="probability", output=tmp_path / "p.zarr", **options)
    found = cam(images, cooccurrence=0.3, output=tmp_path / "c.zarr", **options)
    expected_NK = combined(arrays(plain)["class_score"], 0.3)
    np.testing.assert_allclose(arrays(found)["class_score"], expected_NK, rtol=1e-6)


def test_containers_shards_and_bad_pictures(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "many.zarr", [LABELS[n % 6] for n in range(260)])
    bad = tmp_path / "many7.png"
    bad.write_bytes(b"x" * bad.stat().st_size)
    model = write_model(tmp_path / "m.safetensors")
    options: dict[str, Any] = {"model": model, "classes": "top2", "cooccurrence": 0.4} | CPU
    options |= {"on_bad": "skip", "batch_size": 50}
    whole = cam(images, output=tmp_path / "whole.zarr", **options)
    other = cam(images, output=tmp_path / "other.h5", **options)
    for shard in ("1/2", "0/2"):
        cam(images, output=tmp_path / "parts.zarr", shard=shard, **options)
    digests = {meta(path)["digest"] for path in (whole, other, tmp_path / "parts.zarr")}
    assert len(digests) == 1
    row = arrays(whole)["class_score"][7]
    assert (row == -np.inf).all(), "a picture that failed has no score"
    part = cam(images, output=tmp_path / "part.zarr", limit=10, **options)
    np.testing.assert_allclose(
        arrays(part)["class_score"], arrays(whole)["class_score"][:10], rtol=1e-5
    )


# The option


@pytest.mark.parametrize("alpha", ["-0.1", "nan", "inf", -1, True])
def test_a_weight_out_of_range(alpha: Any) -> None:
    said = r"--cooccurrence must be (in \[0, inf\), got|a number, got True)"
    with pytest.raises(UsageError, match=said):
        read_weight(alpha)


@pytest.mark.parametrize(("option", "alpha"), [("1e-2", 0.01), (0, 0.0), (np.float32(2), 2.0)])
def test_weights_in_all_forms(option: Any, alpha: float) -> None:
    weight = read_weight(option)
    assert weight is not None
    assert (weight.alpha, weight.file) == (alpha, None)
    assert read_weight(None) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"results": []}', '{"results": [{"alpha": 1, "fitted_on": {}}]}', '"\\u00e9"'],
)
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(
        UsageError, match=r"w\.json: no result of fit-cooccurrence\. Write one with"
    ):
        read_weight(path)


def test_no_file_and_no_number() -> None:
    with pytest.raises(UsageError, match=r'must be a number or a file .*, got "strong"'):
        read_weight("strong")


def test_a_model_without_counts(images: Path, tmp_path: Path) -> None:
    old = write_model(tmp_path / "old.safetensors", count=None)
    with pytest.raises(
        ModelError, match=r"old\.safetensors: holds no counts of label pairs, expected .* again"
    ):
        cam(images, model=old, cooccurrence=0.1, output=tmp_path / "c.zarr", **CPU)
    assert not (tmp_path / "c.zarr.wip").exists()


# A weight that was fitted


@pytest.fixture(scope="module")
def fitted(home: Path, model: Path) -> Path:
    """A weight that was chosen on other images, two of which have the names of the first."""
    labels: list[dict[int, int]] = [{0: 1, 1: 1}, {1: 1}, {0: 1, 2: 1}]
    others = write_pictures(home / "others.zarr", labels)
    maps = cam(others, model=model, classes="all", output=home / "others.cam.zarr", **CPU)
    fit_cooccurrence(maps, alphas=[0.25], output=home / "w.json")
    return home / "w.json"


def changed(fitted: Path, path: Path, **more: Any) -> Path:
    held = json.loads(fitted.read_bytes())
    held["results"][0] |= more
    path.write_text(json.dumps(held))
    return path


def test_what_it_was_fitted_on_is_recorded(
    images: Path, model: Path, fitted: Path, tmp_path: Path
) -> None:
    heard = Ears()
    half = changed(fitted, fitted.with_name("half.json"), alpha=0.25)
    out = tmp_path / "further" / "c.zarr"
    out.parent.mkdir()
    path = cam(images, model=model, cooccurrence=half, output=out, report=heard, **CPU)
    one = cam(images, model=model, cooccurrence=0.25, output=tmp_path / "n.zarr", **CPU)
    assert_equal_arrays(path, one)
    held = json.loads(half.read_bytes())["results"][0]
    with open_store(path) as store:
        told = store.attributes["cooccurrence"]
        assert store.meta["inputs"]["cooccurrence"]["path"].endswith("half.json")
    assert told["alpha"] == 0.25
    assert told["fitted_on"]["num_images"] == 3
    assert told["fitted_on"]["digest"] == held["inputs"]["maps"]["digest"]
    assert told["fitted_on"]["overlap"] == 0
    place = path.parent / told["fitted_on"]["path"]
    assert place.resolve() == fitted.with_name("others.cam.zarr").resolve()
    assert heard.warnings == []


def test_images_that_it_was_fitted_on_are_told(
    home: Path, model: Path, fitted: Path, tmp_path: Path
) -> None:
    heard, again = Ears(), Ears()
    options: dict[str, Any] = {"model": model, "cooccurrence": fitted, "classes": "all"} | CPU
    maps = cam(home / "others.zarr", output=tmp_path / "c.zarr", report=heard, limit=2, **options)
    assert heard.warnings == [
        f"--cooccurrence {fitted}: was chosen on 2 of these 2 images, so what they score says "
        "little about others."
    ]
    line = "the weight of co-occurrence was chosen on data that holds 2 of these images"
    found = wsltool.score(maps, protocol="cls-map", report=again)["results"][0]
    assert line in found["warnings"]
    boxes = wsltool.boxes(maps, output=tmp_path / "b.zarr")
    (tmp_path / "further").mkdir()
    ranked = wsltool.rank_boxes(maps, boxes=boxes, output=tmp_path / "further" / "r.zarr")
    for drawn in (boxes, ranked):
        assert line in wsltool.score(drawn, protocol="voc-ap")["results"][0]["warnings"]
    part = wsltool.select(maps, fraction=0.5, output=tmp_path / "further" / "s.zarr")
    copy = wsltool.convert(maps, output=tmp_path / "further" / "c.h5")
    for made in (boxes, ranked, part, copy):
        with open_store(made) as store:
            place = made.parent / store.attributes["cooccurrence"]["fitted_on"]["path"]
        assert place.resolve() == fitted.with_name("others.cam.zarr").resolve()


def test_maps_that_are_gone_are_told(
    images: Path, model: Path, fitted: Path, tmp_path: Path
) -> None:
    heard = Ears()
    moved = changed(fitted, tmp_path / "w.json")
    path = cam(
        images, model=model, cooccurrence=moved, output=tmp_path / "c.zarr", report=heard, **CPU
    )
    assert heard.warnings == [
        f"--cooccurrence {moved}: others.cam.zarr, which it was chosen on, is not there, so "
        "whether it holds these images is not known."
    ]
    with open_store(path) as store:
        assert store.attributes["cooccurrence"]["fitted_on"]["overlap"] is None


def test_a_weight_of_another_model(images: Path, fitted: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.safetensors", seed=1)
    digest = given_model(other, None, input_size=None, fit=None).digest
    with pytest.raises(
        UsageError, match=rf"was chosen for another model \(\w+…\) than other\.sa.* \({digest[:12]}"
    ):
        cam(images, model=other, cooccurrence=fitted, output=tmp_path / "c.zarr", **CPU)


# Whoever reads combined scores


def test_merge_does_not_take_them_for_probabilities(
    images: Path, model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": model, "classes": "all"} | CPU
    one = cam(images, output=tmp_path / "a.zarr", cooccurrence=0.1, **options)
    two = cam(images, output=tmp_path / "b.zarr", cooccurrence=0.2, **options)
    plain = cam(images, output=tmp_path / "c.zarr", **options)
    flipped = cam(images, output=tmp_path / "d.zarr", cooccurrence=0.1, flip=True, **options)
    with pytest.raises(ProtocolError, match="its scores are combined by co-occurrence and may be"):
        wsltool.merge(one, flipped, output=tmp_path / "m.zarr")
    with pytest.raises(ProtocolError, match=r'score_kind is "logit", "combined" in a\.zarr'):
        wsltool.merge(one, plain, how="max", output=tmp_path / "m.zarr")
    with pytest.raises(
        ProtocolError, match=r'alpha is "0\.2", "0\.1" in a\.zarr; expected the same'
    ):
        wsltool.merge(one, two, how="mean", output=tmp_path / "m.zarr")
    merged = wsltool.merge(one, flipped, how="mean", output=tmp_path / "m.zarr")
    with open_store(merged) as store:
        assert store.attributes["score_kind"] == "combined"
        assert store.attributes["cooccurrence"] == {"alpha": 0.1, "fitted_on": None}


def test_boxes_take_them_as_their_score(images: Path, model: Path, tmp_path: Path) -> None:
    maps = cam(images, model=model, cooccurrence=0.2, output=tmp_path / "c.zarr", **CPU)
    path = wsltool.boxes(maps, box_score="class", output=tmp_path / "b.zarr")
    held, found = arrays(maps), arrays(path)
    image_B = np.repeat(np.arange(len(LABELS)), np.diff(found["box_start"]))
    np.testing.assert_array_equal(
        found["box_score"], held["class_score"][image_B, found["box_class"]]
    )
    with open_store(path) as store:
        assert store.attributes["score_kind"] == "combined"
        assert store.attributes["cooccurrence"]["alpha"] == 0.2
        assert store.class_names() == CLASSES
