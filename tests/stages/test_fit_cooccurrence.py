"""``fit-cooccurrence``: the weight that serves named images best, as ``score`` would have it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsltool
from wsltool.errors import LineageError, ModelError, ProtocolError, StoreExistsError, UsageError
from wsltool.metrics.cls_map import classification_ap
from wsltool.stages.cam import cam
from wsltool.stages.fit_cooccurrence import ALPHAS, fit_cooccurrence
from wsltool.stores.lineage import fingerprint_store
from wsltool.stores.open import open_store

from .cooccurring import COUNT, write_model, write_pictures
from .making import Ears, arrays, write_maps, write_store

pytestmark = pytest.mark.usefixtures("one_thread")

CPU: dict[str, Any] = {"device": "cpu", "workers": 0}
PAIRS: list[dict[int, int]] = [
    {0: 1, 1: 1},
    {0: 1},
    {1: 1, 2: 1},
    {2: 1},
    {0: 1, 2: 1},
    {1: 255, 2: 1},
    {0: 1, 1: 1, 2: 1},
    {1: 1},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def images(home: Path) -> Path:
    return write_pictures(home / "images.zarr", PAIRS)


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return write_model(home / "m.safetensors")


@pytest.fixture(scope="module")
def maps(home: Path, images: Path, model: Path) -> Path:
    return cam(images, model=model, classes="all", output=home / "maps.zarr", **CPU)


def fit(maps: Path, **options: Any) -> dict[str, Any]:
    found = fit_cooccurrence(maps, **options)
    entry: dict[str, Any] = found["results"][0]
    return entry


def stored(
    home: Path, name: str, images: Path, score_NK: Any, *, kind: str = "probability", **more: Any
) -> Path:
    """Maps of a cell with these class scores, classes in their order."""
    ids = arrays(images)["image_id"].tolist()
    slots = {
        one: (None, [(int(k), float(row[k]), [[1.0]]) for k in np.argsort(-row)])
        for one, row in zip(ids, np.asarray(score_NK), strict=True)
    }
    path = write_maps(home / f"{name}-draft.zarr", images, slots)
    changes = {"class_score": np.asarray(score_NK, np.float32)}
    return _with_attributes(path, home / name, images, changes, score_kind=kind, **more)


def _with_attributes(
    draft: Path, path: Path, images: Path, changes: dict[str, Any], **attributes: Any
) -> Path:
    values = {
        name: value.tolist() if value.dtype.kind == "T" else value
        for name, value in arrays(draft).items()
    }
    given = {"classes": "all"} | attributes
    return write_store(path, "maps", values | changes, made_from=[images], **given)


# What is chosen


def test_every_value_is_that_of_score(
    home: Path, images: Path, model: Path, maps: Path, tmp_path: Path
) -> None:
    alphas = (0.0, 0.2, 0.6)
    point: dict[str, Any] = {"tolerance": 0.0}
    values = fit(maps, alphas=alphas)["curve"]["value"]
    points = fit(maps, alphas=alphas, objective="point", **point)["curve"]["value"]
    assert len({*values, *points}) > 3, "the case tells weights apart"
    for n, alpha in enumerate(alphas):
        other = cam(
            images,
            model=model,
            classes="all",
            cooccurrence=alpha,
            output=tmp_path / f"{n}.zarr",
            **CPU,
        )
        cls_map = wsltool.score(other, protocol="cls-map")["results"][0]
        assert values[n] == cls_map["value"]
        ranked = wsltool.score(other, protocol="point", confidence="cls", **point)["results"][0]
        assert points[n] == ranked["value"]


def test_the_best_of_the_grid_by_hand(home: Path, tmp_path: Path) -> None:
    """Class 2 is only found by its pairs with class 0; from .5 on it passes the others."""
    images = write_pictures(tmp_path / "i.zarr", [{0: 1, 2: 1}, {1: 1}, {0: 1, 2: 1}, {1: 1}])
    model = write_model(tmp_path / "m.safetensors", count=[[4, 0, 2], [0, 4, 0], [2, 0, 2]])
    score_NK = [[0.8, 0.0, 0.1], [0.0, 0.9, 0.2], [0.7, 0.1, 0.1], [0.1, 0.8, 0.2]]
    maps = stored(tmp_path, "maps.zarr", images, score_NK)
    found = fit(maps, model=model, alphas=[0, 0.1, 0.5, 1.0])
    for alpha, value in zip(*found["curve"].values(), strict=True):
        combined_NK = np.array(score_NK)
        combined_NK[:, 0] += alpha * 1.0 * np.array(score_NK)[:, 2]
        combined_NK[:, 2] += alpha * 0.5 * np.array(score_NK)[:, 0]
        label_NK = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]])
        assert value == classification_ap(combined_NK.astype(np.float32), label_NK)[1]
    assert found["curve"]["alpha"] == [0, 0.1, 0.5, 1.0]
    assert (found["alpha"], found["value"]) == (0.5, 100), "of equals the smallest"
    assert found["value_at_0"] == found["curve"]["value"][0] < 100
    assert found["warnings"] == []


def test_what_is_told_beside(home: Path, images: Path, maps: Path, model: Path) -> None:
    found = fit(maps)
    assert found["curve"]["alpha"] == list(ALPHAS)
    assert found["images"] == {
        "scored": 8,
        "missing": 0,
        "skipped": 0,
        "limit": None,
        "with_several_classes": 4,
    }
    with open_store(maps) as store:
        record = fingerprint_store(store, Path.cwd())
    assert found["fitted_on"] == record | {"num_images": 8, "objective": "cls-map"}
    assert found["inputs"]["maps"] == record
    assert found["inputs"]["model"]["name"] == "m.safetensors"
    assert found["objective"] == "cls-map"
    assert fit(maps, objective="point")["parameters"]["confidence"] == "cls"


def test_0_is_always_tried_and_the_edge_is_told(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "i.zarr", [{0: 1, 2: 1}, {1: 1}])
    model = write_model(tmp_path / "m.safetensors", count=[[4, 0, 2], [0, 4, 0], [2, 0, 2]])
    maps = stored(tmp_path, "maps.zarr", images, [[0.8, 0.0, 0.1], [0.0, 0.9, 0.2]])
    heard = Ears()
    found = fit(maps, model=model, alphas=[0.9], report=heard)
    assert found["curve"]["alpha"] == [0, 0.9]
    line = "the best weight, 0.9, is the largest that was tried; try larger ones with --alphas"
    assert found["warnings"] == [line]
    assert heard.warnings == [f"fit-cooccurrence: {line}"]


def test_images_of_one_label_and_pairs_that_never_were(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "i.zarr", [{0: 1}, {1: 1}, {2: 1}])
    alone = write_model(tmp_path / "alone.safetensors", count=np.diag([4, 2, 1]))
    options: dict[str, Any] = {"classes": "all"} | CPU
    found = fit(cam(images, model=alone, output=tmp_path / "a.zarr", **options))
    assert len(set(found["curve"]["value"])) == 1
    assert found["alpha"] == 0
    assert found["warnings"] == [
        "no training image of the model shows two of these classes, so no weight changes anything",
        "none of the 3 images shows two classes, so they cannot say what pairs are worth; choose "
        "the weight on images with several labels",
    ]


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_logits_become_probabilities_as_the_model_has_it(tmp_path: Path, loss: Any) -> None:
    images = write_pictures(tmp_path / "i.zarr", PAIRS)
    names = ["chair", "person", "motorbike"]
    count = COUNT[np.ix_([2, 0, 1], [2, 0, 1])]
    model = write_model(tmp_path / "m.safetensors", loss=loss, classes=names, count=count)
    options: dict[str, Any] = {"model": model, "classes": "all"} | CPU
    logit = cam(images, output=tmp_path / "l.zarr", **options)
    chance = cam(images, output=tmp_path / "p.h5", scores="probability", **options)
    one, two = (fit(maps, alphas=[0, 0.3, 1, 3, 10]) for maps in (logit, chance))
    assert one["curve"] == two["curve"]
    assert len(set(one["curve"]["value"])) > 1


def test_skipped_images_count_as_without_a_prediction(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "i.zarr", PAIRS)
    bad = tmp_path / "i2.png"
    bad.write_bytes(b"x" * bad.stat().st_size)
    model = write_model(tmp_path / "m.safetensors")
    maps = cam(images, model=model, on_bad="skip", output=tmp_path / "c.zarr", **CPU)
    found = fit(maps, alphas=[0, 0.3])
    assert found["images"]["skipped"] == 1
    assert found["fitted_on"]["num_images"] == 7
    other = cam(
        images, model=model, cooccurrence=0.3, on_bad="skip", output=tmp_path / "o.zarr", **CPU
    )
    value = wsltool.score(other, protocol="cls-map")["results"][0]["value"]
    assert found["curve"]["value"][1] == value


def test_images_that_were_all_skipped(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "i.zarr", PAIRS)
    for bad in tmp_path.glob("i*.png"):
        bad.write_bytes(b"x" * bad.stat().st_size)
    model = write_model(tmp_path / "m.safetensors")
    maps = cam(images, model=model, on_bad="skip", output=tmp_path / "c.zarr", **CPU)
    line = "c.zarr: none of its 8 images has scores, all were skipped. Choose the weight on others."
    with pytest.raises(ProtocolError, match=f"^{re.escape(line)}$"):
        fit_cooccurrence(maps)


def test_some_rows_of_maps_are_named_images_too(maps: Path, tmp_path: Path) -> None:
    part = wsltool.select(maps, fraction=0.5, output=tmp_path / "half.zarr")
    found = fit(part)
    assert found["images"]["scored"] == found["fitted_on"]["num_images"] == 4
    assert found["images"]["limit"]["how"] == "select"


def test_the_file_is_what_is_returned_and_serves_cam(
    images: Path, maps: Path, model: Path, tmp_path: Path
) -> None:
    found = fit_cooccurrence(maps, output=tmp_path / "w.json")
    assert json.loads((tmp_path / "w.json").read_bytes()) == found
    fit_cooccurrence(maps, output=tmp_path / "w.json", objective="point")
    alpha = json.loads((tmp_path / "w.json").read_bytes())["results"][0]["alpha"]
    path = cam(
        images, model=model, cooccurrence=tmp_path / "w.json", output=tmp_path / "c.zarr", **CPU
    )
    with open_store(path) as store:
        assert store.attributes["cooccurrence"]["alpha"] == alpha
        assert store.attributes["cooccurrence"]["fitted_on"]["objective"] == "point"


# What is refused


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"alphas": [0.1, -0.2]}, r"--alphas must be in \[0, inf\), got -0\.2"),
        ({"alphas": [float("nan")]}, r"--alphas must be in \[0, inf\), got nan"),
        ({"alphas": []}, r"--alphas must be numbers with commas between, got none\."),
        ({"alphas": "0.1"}, r"--alphas must be a sequence of numbers, got '0\.1'"),
        ({"objective": "voc-ap"}, r'--objective must be cls-map or point, got "voc-ap"'),
        ({"tolerance": 3.0}, r"--tolerance 3\.0 has no meaning for cls-map"),
        ({"objective": "point", "tolerance": -1.0}, r"--tolerance must be"),
        ({"output": "no/such/w.json"}, r"-o no/such/w\.json: the folder no/such does not exist"),
    ],
)
def test_wrong_options(maps: Path, option: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fit_cooccurrence(maps, **option)


def test_something_else_at_the_output(maps: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(StoreExistsError, match="is no result of score, effort or fit-cooccurrence"):
        fit_cooccurrence(maps, output=tmp_path / "mine.json")


def test_maps_that_were_combined_or_are_not_all(
    images: Path, model: Path, maps: Path, tmp_path: Path
) -> None:
    again = cam(images, model=model, cooccurrence=0.1, output=tmp_path / "c.zarr", **CPU)
    combined = r"^c\.zarr: its scores are combined already, expected those of the model\. Make it "
    with pytest.raises(ProtocolError, match=combined + "again without --cooccurrence"):
        fit_cooccurrence(again)
    few = cam(images, model=model, classes="top2", output=tmp_path / "t.zarr", **CPU)
    with pytest.raises(ProtocolError, match=r"holds the classes top2, expected a map of every"):
        fit_cooccurrence(few, objective="point")
    assert fit(few)["curve"] == fit(maps)["curve"], "classes are scored whatever maps are kept"


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1.5])
def test_scores_that_are_none(images: Path, model: Path, tmp_path: Path, value: float) -> None:
    score_NK = np.full((len(PAIRS), 3), 0.5)
    score_NK[3, 1] = value
    path = stored(tmp_path, "maps.zarr", images, np.where(np.isnan(score_NK), 0.5, score_NK))
    bad = _with_attributes(
        path,
        tmp_path / "bad.zarr",
        images,
        {"class_score": score_NK.astype(np.float32)},
        score_kind="probability",
    )
    with pytest.raises(
        ProtocolError,
        match=rf'bad\.zarr row 3: the score of class "motorbike" is {value}; expected the prob',
    ):
        fit_cooccurrence(bad, model=model)


def test_scores_that_nobody_named(images: Path, model: Path, tmp_path: Path) -> None:
    score_NK = np.full((len(PAIRS), 3), 0.5)
    path = stored(tmp_path, "u.zarr", images, score_NK, kind="unknown")
    with pytest.raises(ProtocolError, match='score_kind is "unknown", expected logit or proba'):
        fit_cooccurrence(path, model=model)


def test_a_softmax_over_classes_that_are_not_there(images: Path, tmp_path: Path) -> None:
    names = ["tree", "person", "motorbike", "chair"]
    count = np.ones((4, 4), np.int64)
    model = write_model(tmp_path / "m.safetensors", loss="softmax", classes=names, count=count)
    logit = cam(images, model=model, output=tmp_path / "l.zarr", **CPU)
    with pytest.raises(ProtocolError, match="holds logits of 3 of its model's 4 classes, so their"):
        fit_cooccurrence(logit)
    chance = cam(images, model=model, scores="probability", output=tmp_path / "p.zarr", **CPU)
    assert len(fit(chance)["curve"]["value"]) == len(ALPHAS)


def test_the_model_that_is_needed(images: Path, maps: Path, model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(ModelError, match=r"--model .*other\.safetensors: is another model \("):
        fit_cooccurrence(maps, model=other)
    old = write_model(tmp_path / "old.safetensors", count=None)
    plain = cam(images, model=old, output=tmp_path / "c.zarr", **CPU)
    with pytest.raises(ModelError, match=r"old\.safetensors: holds no counts of label pairs"):
        fit_cooccurrence(plain)
    made = stored(tmp_path, "maps.zarr", images, np.full((len(PAIRS), 3), 0.5))
    with pytest.raises(LineageError, match=r"does not record what model .* with --model"):
        fit_cooccurrence(made)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(model.read_bytes())
    assert fit(maps, model=moved)["curve"] == fit(maps)["curve"]


def test_images_without_any_class(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "i.zarr", [{}, {0: 255}])
    model = write_model(tmp_path / "m.safetensors")
    maps = cam(images, model=model, output=tmp_path / "c.zarr", **CPU)
    with pytest.raises(ProtocolError, match="no class is present in any of the 2 images"):
        fit_cooccurrence(maps)
