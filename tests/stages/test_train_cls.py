"""``train-cls``: from labels to a model file, refused, and used; all its options."""

from __future__ import annotations

import hashlib
import json
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsltool
from wsltool.datasets.scenes import write_scenes
from wsltool.errors import (
    BadImageError,
    ModelError,
    StoreExistsError,
    StoreKindError,
    TrainingError,
    UsageError,
)
from wsltool.nets.model_file import read_header
from wsltool.nets.models import load_model

from .making import Ears, put_picture

NUM = 24
QUICK: dict[str, Any] = {
    "model": "small_gap",
    "loss": "logistic",
    "iterations": 4,
    "input_size": 48,
    "batch_size": 8,
    "device": "cpu",
    "workers": 0,
}
"""Three iterations make an epoch."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(
        tmp_path_factory.mktemp("scenes") / "scenes", num_train=NUM, num_test=6, seed=3
    )


@pytest.fixture(scope="module")
def images(scenes: Path) -> Path:
    classes, output = scenes / "classes.txt", scenes.with_name("train.zarr")
    return wsltool.ingest_voc(scenes, split="train", classes=classes, output=output)


@pytest.fixture(scope="module")
def others(scenes: Path) -> Path:
    """Images to validate on."""
    classes, output = scenes / "classes.txt", scenes.with_name("test.zarr")
    return wsltool.ingest_voc(scenes, split="test", classes=classes, output=output)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of two other classes, without boxes."""
    folder = tmp_path_factory.mktemp("folders") / "photos"
    for name in ("a/0", "b/0", "b/1"):
        put_picture(folder / f"{name}.png", (40, 30))
    return wsltool.ingest_folder(folder)


@pytest.fixture(scope="module")
def first(images: Path) -> Path:
    """A model that was trained before."""
    return wsltool.train_cls(images, **QUICK, output=images.with_name("first.safetensors"))


def _train(images: Path, output: Path, **options: Any) -> Path:
    given = QUICK | options
    if given.get("epochs"):
        given.pop("iterations")
    return wsltool.train_cls(images, **given, output=output)


def _arrays(path: Path) -> dict[str, str]:
    """Return the digest of every array: pytest takes minutes to show how long bytes differ."""
    state = load_model(str(path)).network.module.state_dict()
    return {n: hashlib.sha256(v.numpy().tobytes()).hexdigest() for n, v in state.items()}


def _log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.with_suffix(".log.jsonl").read_text().splitlines()]


def _made(path: Path) -> dict[str, Any]:
    header = read_header(path)
    assert header is not None
    made: dict[str, Any] = header.provenance["made"]
    return made


def _pairs(path: Path) -> list[list[int]]:
    """Return what a model file says of labels that occur together."""
    count_KK = load_model(str(path)).label_pair_count_KK
    assert count_KK is not None
    found: list[list[int]] = count_KK.tolist()
    return found


def _pairs_of(images: Path) -> list[list[int]]:
    with wsltool.open_store(images) as store:
        present_NK = (store.whole("label") == 1).astype(int)
    found: list[list[int]] = (present_NK.T @ present_NK).tolist()
    return found


# From labels to a model file


def test_the_model_file_holds_what_cam_needs(images: Path, tmp_path: Path) -> None:
    heard, output = Ears(), tmp_path / "m.safetensors"
    path = _train(images, output, report=heard)
    assert heard.announced == [path]
    header = read_header(path)
    assert header is not None
    assert header.class_name == ["disc", "triangle", "square", "star", "cross", "train"]
    assert (header.arch, header.loss, header.pool) == ("small_gap", "logistic", "gap")
    assert header.provenance["iteration"] == 4
    made = header.provenance["made"]
    assert (made["params"]["epochs"], made["params"]["iterations"]) == (None, 4)
    assert made["inputs"]["images"]["path"].endswith("train.zarr")
    assert made["compute"]["processes"] == 1
    assert not (tmp_path / "m.safetensors.wip").exists()
    assert _pairs(path) == _pairs_of(images)
    log = path.with_suffix(".log.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(log.stat().st_mode)
    maps = wsltool.cam(images, model=str(path), output=tmp_path / "maps.zarr", workers=0)
    assert wsltool.verify(maps)["problems"] == []


def test_label_pairs_are_those_of_the_images_whatever_is_drawn(
    images: Path, first: Path, tmp_path: Path
) -> None:
    """Balancing shows some images more often; another start brings no pairs of its own."""
    options: dict[str, Any] = {"augment": "crop,balance", "keep_at": [2], "epochs": 2}
    path = _train(images, tmp_path / "m.safetensors", model=str(first), **options)
    assert _pairs(path) == _pairs_of(images)
    assert _pairs(tmp_path / "m.iter2.safetensors") == _pairs_of(images)
    part = _train(images, tmp_path / "p.safetensors", limit=9)
    with wsltool.open_store(images) as store:
        present_NK = (store.rows("label", 0, 9) == 1).astype(int)
    assert _pairs(part) == (present_NK.T @ present_NK).tolist()


def test_the_log_has_a_line_an_iteration(images: Path, first: Path) -> None:
    log = _log(first)
    fields = ["iteration", "epoch", "loss", "lr", "seconds", "num_images"]
    assert [list(line) for line in log] == [fields] * 4
    assert [(line["iteration"], line["epoch"]) for line in log] == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert all(line["num_images"] == 8 and line["lr"] == 0.001 for line in log)
    assert all(np.isfinite(line["loss"]) and line["seconds"] >= 0 for line in log)


def test_a_picture_of_the_training_needs_matplotlib(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    heard = Ears()
    _train(images, tmp_path / "a.safetensors", report=heard, iterations=2)
    assert (tmp_path / "a.curve.png").read_bytes().startswith(b"\x89PNG")
    assert not [line for line in heard.notes if "picture" in line]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = _train(images, tmp_path / "b.safetensors", report=heard, iterations=2)
    assert path.exists()
    assert not (tmp_path / "b.curve.png").exists()
    (line,) = [line for line in heard.notes if "picture" in line]
    assert line.startswith("no picture of the training: ")
    assert "curves need matplotlib. Install it: pip install 'wsltool[plots]'" in line


def test_where_weights_came_from_is_said_and_recorded(
    images: Path, first: Path, tmp_path: Path
) -> None:
    heard = Ears()
    _train(images, tmp_path / "m.safetensors", report=heard, iterations=1)
    assert heard.notes[0] == (
        "small_gap: no weights loaded; initialised: features, fc (0.3 M numbers)"
    )
    heard = Ears()
    path = _train(images, tmp_path / "n.safetensors", report=heard, init=first, iterations=1)
    assert heard.notes[0].startswith("small_gap: ")
    assert heard.notes[0].endswith(" from first.safetensors")
    header = read_header(path)
    assert header is not None
    assert header.provenance["initialised"] == []
    assert header.provenance["num_matched"] == len(_arrays(first))
    inputs = header.provenance["made"]["inputs"]
    assert inputs["init"]["digest"].startswith("sha256:")


def test_the_derived_name_and_the_same_command_twice(images: Path) -> None:
    path = wsltool.train_cls(images, **QUICK)
    assert path == images.with_name("train.train-cls.safetensors")
    before = path.read_bytes()
    heard = Ears()
    assert wsltool.train_cls(images, **QUICK, report=heard) == path
    assert path.read_bytes() == before
    assert any("finished already, left alone" in line for line in heard.notes)
    with pytest.raises(StoreExistsError, match=r"made with --iterations 4, now 3\. Pass -o"):
        wsltool.train_cls(images, **QUICK | {"iterations": 3})
    assert path.read_bytes() == before


def test_a_parameter_counts_as_it_is_meant(images: Path, first: Path, tmp_path: Path) -> None:
    """Spellings of one value are the same training, whether given or filled in."""
    heard = Ears()
    same = {"lr": 1e-3, "pool": "gap", "augment": "mirror,crop=.5", "schedule": "constant"}
    _train(images, first, **same, checkpoint_minutes=3, cache=tmp_path, report=heard)
    assert any("finished already" in line for line in heard.notes)
    for option, line in {
        "schedule": "--schedule constant, now cosine",
        "lr_multiplier": "--lr-multiplier , now head=10",
        "keep_at": r"--keep-at \[\], now \[2\]",
        "loss": "--loss logistic, now softmax-bce",
    }.items():
        value = {"keep_at": [2], "lr_multiplier": "head=10.0"}.get(option, line.split()[-1])
        with pytest.raises(StoreExistsError, match=f"made with {line}"):
            _train(images, first, **QUICK | {option: value})


def test_equal_seeds_give_equal_weights_and_others_do_not(
    images: Path, tmp_path: Path, one_thread: object
) -> None:
    one = _train(images, tmp_path / "one.safetensors")
    two = _train(images, tmp_path / "two.safetensors")
    other = _train(images, tmp_path / "other.safetensors", seed=1)
    assert _arrays(one) == _arrays(two)
    assert _arrays(one) != _arrays(other)


def test_stages_chain_in_python(images: Path, first: Path, tmp_path: Path) -> None:
    maps = wsltool.cam(images, model=first, output=tmp_path / "maps.zarr", workers=0)
    again = _train(images, tmp_path / "n.safetensors", model=first, iterations=1)
    assert maps.exists()
    assert again.exists()


def test_the_spelling_of_a_path_is_no_difference(
    images: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "n.safetensors"
    _train(images, output, iterations=1, model=first)
    monkeypatch.chdir(first.parent)
    heard = Ears()
    _train(images, output, iterations=1, model="./first.safetensors", report=heard)
    assert any("finished already" in line for line in heard.notes)


def test_a_class_without_images_is_told(images: Path, tmp_path: Path) -> None:
    heard = Ears()
    _train(images, tmp_path / "m.safetensors", limit=3, report=heard)
    assert [
        line for line in heard.warnings if "of 6 classes have no image and cannot be learnt" in line
    ]


def test_a_bad_picture_is_named_with_its_store(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        put_picture(folder / name / "0.png", (40, 30))
    put_picture(folder / "b" / "1.png", (40, 30))
    store = wsltool.ingest_folder(folder)
    broken = (folder / "b" / "1.png").read_bytes()
    (folder / "b" / "1.png").write_bytes(broken[: len(broken) // 2])
    with pytest.raises(BadImageError, match=r"photos\.images\.zarr row 2: .*Leave the image out"):
        _train(store, tmp_path / "m.safetensors", loss="softmax")


# How


def test_iterations_epochs_and_the_schedule(images: Path, tmp_path: Path) -> None:
    path = _train(
        images, tmp_path / "a.safetensors", iterations=5, schedule="step=2:.5", optimizer="sgd"
    )
    assert [line["lr"] for line in _log(path)] == [0.01, 0.01, 0.005, 0.005, 0.0025]
    path = _train(
        images, tmp_path / "b.safetensors", epochs=2, schedule="cosine,warmup=2", lr=0.004
    )
    found = [line["lr"] for line in _log(path)]
    half = [0.5, 1, 1, 1, 1, 1]
    wanted = [h * 0.004 * (1 + np.cos(np.pi * n / 6)) / 2 for n, h in enumerate(half)]
    assert found == pytest.approx(wanted)
    assert _made(path)["params"]["schedule"] == "cosine,warmup=2"
    assert _made(path)["params"]["epochs"] == 2


def test_ten_epochs_where_nothing_is_said(folders: Path, tmp_path: Path) -> None:
    given = {name: value for name, value in QUICK.items() if name != "iterations"}
    path = wsltool.train_cls(
        folders, **given | {"loss": "softmax"}, output=tmp_path / "m.safetensors"
    )
    assert _log(path)[-1]["epoch"] == 10


def test_parts_that_do_not_learn_by_their_multiplier(
    images: Path, first: Path, tmp_path: Path
) -> None:
    path = _train(
        images,
        tmp_path / "m.safetensors",
        init=first,
        lr_multiplier="features=0,head=10,bias=2",
        weight_decay=0,
    )
    one, two = _arrays(first), _arrays(path)
    changed = {name for name in one if one[name] != two[name] and "running" not in name}
    assert {name for name in changed if "num_batches" not in name} == {"fc.weight", "fc.bias"}
    assert _made(path)["params"]["lr_multiplier"] == "bias=2,features=0,head=10"


def test_a_batch_in_pieces_is_computed(images: Path, tmp_path: Path) -> None:
    path = _train(images, tmp_path / "m.safetensors", accumulate=3)
    assert [line["num_images"] for line in _log(path)] == [8] * 4
    assert _made(path)["params"]["accumulate"] == 3


@pytest.mark.parametrize("loss", ["logistic", "softmax-bce"])
@pytest.mark.parametrize("pool", ["gmp", "lse:3", "gwrp:.9"])
def test_every_head_and_loss_trains_and_is_kept_with_the_model(
    images: Path, tmp_path: Path, loss: str, pool: str
) -> None:
    path = _train(images, tmp_path / "m.safetensors", pool=pool, loss=loss, iterations=2)
    header = read_header(path)
    assert header is not None
    assert (header.pool.split(":")[0], header.loss) == (pool.split(":")[0], loss)
    if pool == "gmp":
        probability = wsltool.cam(
            images,
            model=path,
            scores="probability",
            limit=2,
            output=tmp_path / "p.zarr",
            workers=0,
        )
        assert wsltool.verify(probability)["problems"] == []


def test_padding_counts_where_it_is_asked_for(images: Path, tmp_path: Path) -> None:
    options = {"pool": "gmp", "fit": "letterbox", "iterations": 2}
    counted = _train(images, tmp_path / "a.safetensors", **options, count_padding=True)
    plain = _train(images, tmp_path / "b.safetensors", **options)
    headers = [read_header(path) for path in (counted, plain)]
    assert [header and header.count_padding for header in headers] == [True, False]
    assert [header and header.preprocess["fit"] for header in headers] == ["letterbox"] * 2
    assert _log(counted)[0]["loss"] != _log(plain)[0]["loss"]
    assert load_model(str(counted)).network.count_padding


@pytest.mark.parametrize("masked", ["inside", "inside-outside"])
def test_masked_pooling_reads_true_boxes(images: Path, tmp_path: Path, masked: str) -> None:
    options = {"pool": "gmp", "iterations": 2}
    path = _train(images, tmp_path / "m.safetensors", **options, masked_pooling=masked)
    plain = _train(images, tmp_path / "p.safetensors", **options)
    assert _log(path)[0]["loss"] != _log(plain)[0]["loss"]
    assert _made(path)["params"]["masked_pooling"] == masked


def test_class_maps_that_are_negative_everywhere_are_no_obstacle(
    images: Path, tmp_path: Path
) -> None:
    """SqueezeNet as published ends in a ReLU, which would make all of them zero."""
    path = _train(
        images,
        tmp_path / "m.safetensors",
        model="squeezenet1_1",
        init="none",
        optimizer="sgd",
        lr=0.001,
        iterations=15,
        input_size=64,
        batch_size=7,
    )
    maps = wsltool.cam(images, model=path, classes="all", output=tmp_path / "c.zarr", workers=0)
    with wsltool.open_store(maps) as store:
        assert store.rows("map", 0, NUM).max() < 0


# What does not learn, and what is computed once


class Counter(Ears):
    """Counts what progress is told of, by its label."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        self.count[label] = 0

        def advance(num: int) -> None:
            self.count[label] += num

        yield advance


def test_frozen_features_learn_the_head_alone(images: Path, first: Path, tmp_path: Path) -> None:
    heard = Counter()
    path = _train(
        images, tmp_path / "m.safetensors", init=str(first), freeze="features", report=heard
    )
    one, two = _arrays(first), _arrays(path)
    assert {name for name in one if one[name] != two[name]} == {"fc.weight", "fc.bias"}
    assert heard.count == {"features": NUM, "train-cls": 4}
    assert _made(path)["params"]["augment"] == "mirror"
    assert _made(first)["params"]["augment"] == "mirror,crop=0.5"


def test_two_trainings_share_a_cache(
    images: Path, others: Path, first: Path, tmp_path: Path
) -> None:
    common = {
        "init": str(first),
        "freeze": "features",
        "validate": others,
        "cache": tmp_path / "cache",
    }
    counts = []
    for name, more in {"a": {}, "b": {"lr": 0.1, "loss": "softmax-bce"}, "c": {"limit": 9}}.items():
        heard = Counter()
        _train(images, tmp_path / f"{name}.safetensors", **common, **more, report=heard)
        counts.append(heard.count.get("features", 0))
    assert counts == [NUM + 6, 0, 9]
    assert not (tmp_path / "a.safetensors.wip").exists()
    assert len(list((tmp_path / "cache").glob("features-*.value.npy"))) == 3


def test_a_module_and_all_before_it_can_be_frozen(
    images: Path, first: Path, tmp_path: Path
) -> None:
    path = _train(images, tmp_path / "m.safetensors", init=str(first), freeze="features.2")
    one, two = _arrays(first), _arrays(path)
    changed = {name for name in one if one[name] != two[name]}
    still = {n for n in one if n.startswith(("features.0.", "features.1.", "features.2."))}
    assert still.isdisjoint(changed)
    assert any(name.startswith("features.3.") for name in changed)


# On the way


def test_validation_is_logged_and_told(images: Path, others: Path, tmp_path: Path) -> None:
    heard = Ears()
    path = _train(
        images,
        tmp_path / "m.safetensors",
        validate=others,
        validate_every=2,
        iterations=5,
        report=heard,
    )
    lines = [line for line in _log(path) if "val_loss" in line]
    assert [list(line) for line in lines] == [["iteration", "epoch", "val_loss", "val_cls_map"]] * 3
    assert [line["iteration"] for line in lines] == [2, 4, 5]
    assert all(line["val_loss"] > 0 and 0 <= line["val_cls_map"] <= 100 for line in lines)
    assert len([line for line in heard.notes if "validation loss " in line]) == 3
    inputs = _made(path)["inputs"]
    assert inputs["validate"]["path"].endswith("test.zarr")
    plain = _train(images, tmp_path / "p.safetensors", validate=others, iterations=4)
    assert [line["iteration"] for line in _log(plain) if "val_loss" in line] == [3, 4]


def test_the_last_validation_is_what_cam_and_score_give(
    images: Path, others: Path, tmp_path: Path
) -> None:
    path = _train(images, tmp_path / "m.safetensors", validate=others, iterations=3)
    maps = wsltool.cam(others, model=path, classes="all", output=tmp_path / "c.zarr", workers=0)
    with wsltool.open_store(maps) as store, wsltool.open_store(others) as truth:
        score_NK = store.rows("class_score", 0, 6).astype(np.float64)
        present_NK = truth.rows("label", 0, 6) == 1
    sign_NK = np.where(present_NK, 1, -1)
    loss = np.log1p(np.exp(-sign_NK * score_NK)).sum(1).mean()
    assert _log(path)[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)


def test_one_class_an_image_has_a_top_1_share(folders: Path, tmp_path: Path) -> None:
    path = _train(folders, tmp_path / "m.safetensors", loss="softmax", validate=folders)
    assert list(_log(path)[-1])[2:] == ["val_loss", "val_cls_map", "val_top1"]


def test_validation_needs_the_same_classes(
    images: Path, others: Path, folders: Path, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError,
        match=r"--validate photos\.images\.zarr: has 2 classes, train\.zarr 6; the first that "
        r"differs is number 0\. Ingest both",
    ):
        _train(images, tmp_path / "m.safetensors", validate=folders)
    maps = wsltool.cam(others, model=first, output=tmp_path / "maps.zarr", workers=0)
    with pytest.raises(StoreKindError, match='kind is "maps", but train-cls --validate reads'):
        _train(images, tmp_path / "m.safetensors", validate=maps)


def test_models_are_kept_on_the_way(images: Path, tmp_path: Path, one_thread: object) -> None:
    heard = Ears()
    path = _train(images, tmp_path / "m.safetensors", keep_at=[3, 1, 3], report=heard)
    kept = [tmp_path / f"m.iter{n}.safetensors" for n in (1, 3)]
    assert sorted(tmp_path.glob("*.iter*")) == kept
    for number, file in zip((1, 3), kept, strict=True):
        header = read_header(file)
        assert header is not None
        assert header.provenance["iteration"] == number
        assert f"{file}: the model after {number} iterations." in heard.notes
    assert _made(path)["params"]["keep_at"] == [1, 3]
    maps = wsltool.cam(images, model=kept[0], limit=2, output=tmp_path / "c.zarr", workers=0)
    assert wsltool.verify(maps)["problems"] == []
    three = _train(images, tmp_path / "three.safetensors", iterations=3)
    assert _arrays(kept[1]) == _arrays(three)
    assert _arrays(kept[1]) != _arrays(path)


# Two phases


def test_a_second_and_a_third_phase(
    images: Path, first: Path, tmp_path: Path, one_thread: object
) -> None:
    second = _train(images, tmp_path / "second.safetensors", suppress=[first])
    third = _train(
        images,
        tmp_path / "third.safetensors",
        suppress=[first, second],
        suppress_threshold=[0.5],
        suppress_layer="features.3",
    )
    plain = _log(first)
    assert _log(second)[0]["loss"] != plain[0]["loss"] != _log(third)[0]["loss"]
    assert [role for role in _made(second)["inputs"] if "suppress" in role] == ["suppress"]
    made = _made(third)
    files = {role: one["path"] for role, one in made["inputs"].items() if "suppress" in role}
    assert {role: Path(path).name for role, path in files.items()} == {
        "suppress": "first.safetensors",
        "suppress2": "second.safetensors",
    }
    assert made["params"]["suppress_threshold"] == [0.5]
    assert made["params"]["suppress_layer"] == "features.3"
    heard = Ears()
    _train(images, second, suppress=[first], report=heard)
    assert any("finished already" in line for line in heard.notes)
    with pytest.raises(StoreExistsError, match=r"made from another suppress than .*third\.safeten"):
        _train(images, second, suppress=[third])
    with pytest.raises(StoreExistsError, match="made without the input suppress2"):
        _train(images, second, suppress=[first, third])


def test_earlier_networks_that_do_not_suit(
    images: Path, folders: Path, first: Path, tmp_path: Path
) -> None:
    output, heard = tmp_path / "m.safetensors", Ears()
    stranger = _train(folders, tmp_path / "stranger.safetensors", loss="softmax", iterations=1)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        TrainingError, match="the earlier small_gap does not know disc, triangle, square; it knows"
    ):
        _train(images, output, suppress=[stranger], report=heard)
    with pytest.raises(TrainingError, match=r"--suppress-threshold must be in \(0, 1\), got 1.5"):
        _train(images, output, suppress=[first], suppress_threshold=[1.5], report=heard)
    with pytest.raises(TrainingError, match="--suppress-threshold: 2 thresholds for 1 networks"):
        _train(images, output, suppress=[first], suppress_threshold=[0.5, 0.4], report=heard)
    with pytest.raises(TrainingError, match='--suppress-layer "conv5": the network has no such'):
        _train(images, output, suppress=[first], suppress_layer="conv5", report=heard)
    with pytest.raises(ModelError, match=r"nothing\.safetensors"):
        _train(images, output, suppress=[tmp_path / "nothing.safetensors"], report=heard)
    assert heard.announced == []
    assert sorted(tmp_path.iterdir()) == before


# Refused


def test_what_is_wrong_is_found_before_a_name_is_printed(
    images: Path, folders: Path, tmp_path: Path
) -> None:
    heard, output = Ears(), tmp_path / "m.safetensors"
    with pytest.raises(TrainingError, match=r"softmax needs exactly one, and .* Pass --loss log"):
        _train(images, output, loss="softmax", report=heard)
    with pytest.raises(ModelError, match='there is no model "resnt18"'):
        _train(images, output, model="resnt18", report=heard)
    with pytest.raises(TrainingError, match="--freeze features: nothing of small_gap was trained"):
        _train(images, output, freeze="features", report=heard)
    with pytest.raises(TrainingError, match='--freeze "conv9": the network has no such module'):
        _train(images, output, freeze="conv9", report=heard)
    with pytest.raises(TrainingError, match='--lr-multiplier "hed": nothing that learns is called'):
        _train(images, output, lr_multiplier="hed=10", report=heard)
    with pytest.raises(TrainingError, match="--masked-pooling inside: the images have no boxes"):
        _train(folders, output, masked_pooling="inside", report=heard)
    with pytest.raises(ModelError, match="read 6x6 cells of a 224x224 picture, got 100x100"):
        _train(images, output, model="alexnet_adapted", init="none", input_size=100, report=heard)
    with pytest.raises(UsageError, match=r"m\.pt: a model file ends in \.safetensors\."):
        _train(images, tmp_path / "m.pt", report=heard)
    assert heard.announced == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"limit": 2.5}, "--limit must be a whole number, got 2.5."),
        ({"limit": True}, "--limit must be a whole number, got True."),
        ({"epochs": 1.5}, "--epochs must be a whole number, got 1.5."),
        ({"epochs": 0, "iterations": None}, "--epochs must be in [1, 100000000), got 0."),
        ({"iterations": 0}, "--iterations must be in [1, 100000000), got 0."),
        ({"epochs": 2}, "epochs 2 and iterations 4 are both given; expected one of them."),
        ({"batch_size": "8"}, "--batch-size must be a whole number, got '8'."),
        ({"accumulate": 0}, "--accumulate must be in [1, 1048576), got 0."),
        ({"accumulate": 9}, "accumulate is out of range, got 9."),
        ({"lr": "fast"}, "--lr must be a number, got 'fast'."),
        ({"lr": 0}, "--lr must be in (0, 1000), got 0."),
        ({"lr": float("nan")}, "--lr must be in (0, 1000), got nan."),
        ({"weight_decay": -1}, "--weight-decay must be in [0, 1), got -1."),
        ({"seed": -1}, "--seed must be in [0, "),
        ({"loss": "hinge"}, 'loss must be one of softmax, logistic, softmax-bce, got "hinge".'),
        ({"optimizer": "lion"}, 'optimizer must be one of sgd, adamw, got "lion".'),
        ({"masked_pooling": "out"}, "masked_pooling must be one of none, inside, inside-outside"),
        ({"pool": "max"}, '"max"'),
        ({"lr_multiplier": "head"}, 'lr_multiplier: "head" is no NAME=FACTOR'),
        ({"lr_multiplier": "head=-1"}, 'lr_multiplier: "head=-1" is no NAME=FACTOR'),
        ({"schedule": "linear"}, "--schedule linear is not understood; expected constant,"),
        ({"schedule": "step=0"}, "--schedule step=0: step takes whole numbers of iterations"),
        ({"augment": "flip"}, '--augment flip: "flip" is not understood; expected mirror,'),
        ({"augment": "crop=2"}, "--augment crop=2: crop must be in (0, 1], got 2."),
        ({"input_size": 0}, "--input-size"),
        ({"validate_every": 5}, "--validate-every needs --validate IMAGES. Give both."),
        ({"validate_every": 0}, "--validate-every must be in [1, "),
        ({"keep_at": [2, 0]}, "--keep-at must be in [1, "),
        ({"checkpoint_minutes": -1}, "--checkpoint-minutes must be in [0, "),
        ({"checkpoint_minutes": float("nan")}, "--checkpoint-minutes must be in [0, "),
        ({"suppress_threshold": [0.5]}, "--suppress-threshold and --suppress-layer need --suppr"),
        ({"suppress_layer": "features"}, "--suppress-threshold and --suppress-layer need --sup"),
        ({"shard": "0/2"}, "train-cls has one worker and leaves no image out: no --shard"),
        ({"on_bad": "skip"}, "train-cls has one worker and leaves no image out: no --shard"),
    ],
)
def test_wrong_usage(images: Path, tmp_path: Path, option: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        wsltool.train_cls(images, **QUICK | option, output=tmp_path / "m.safetensors")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_train_on(tmp_path: Path) -> None:
    put_picture(tmp_path / "photos/a/0.png", (40, 30))
    (tmp_path / "photos/a/0.png").write_bytes(b"nothing")
    store = wsltool.ingest_folder(tmp_path / "photos", on_bad="skip")
    with pytest.raises(UsageError, match="every image was left out, nothing to train on"):
        _train(store, tmp_path / "m.safetensors")


def test_numpy_numbers_are_numbers(images: Path, tmp_path: Path) -> None:
    path = _train(
        images,
        tmp_path / "m.safetensors",
        iterations=np.int64(2),
        lr=np.float64(0.01),
        keep_at=[np.int64(1)],
        limit=np.int32(8),
    )
    assert _made(path)["params"]["keep_at"] == [1]
    path = wsltool.baseline(
        images,
        prior="random",
        grid=np.int64(4),
        seed=np.int64(1),
        limit=np.int32(3),
        output=tmp_path / "r.zarr",
    )
    boxes = wsltool.boxes(path, threshold=np.float64(0.2), output=tmp_path / "b.zarr")
    with wsltool.open_store(boxes) as store:
        assert store.meta["params"]["threshold"] == 0.2
        assert store.meta["limit"]["num_rows"] == 3
