"""Counts of label pairs in the file of a model: kept, read, and apart from its network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wsltool.errors import ModelError
from wsltool.nets.initial import start_network
from wsltool.nets.models import load_model, save_model
from wsltool.nets.training_parts import Labelled
from wsltool.nets.weights import read_state

from .test_models import small_model

COUNT = np.array([[4, 2, 1], [2, 3, 0], [1, 0, 1]])
ARRAY = "wsltool.label_pair_count"


def saved(path: Path, count_KK: np.ndarray[tuple[int, int], np.dtype[np.int64]] | None) -> Path:
    model = small_model()
    model.label_pair_count_KK = count_KK
    save_model(path, model, {})
    return path


def written_anew(path: Path, header: str | None = None, **arrays: torch.Tensor) -> None:
    """Write a model file with other arrays, or another header."""
    with safe_open(path, "pt") as file:
        kept = file.metadata()["wsltool"]
    named = {name.replace("__", "."): value for name, value in arrays.items()}
    save_file(load_file(path) | named, path, metadata={"wsltool": header or kept})


def test_they_come_back_and_are_no_part_of_the_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors", COUNT)
    read = load_model(str(path))
    assert read.label_pair_count_KK is not None
    assert read.label_pair_count_KK.tolist() == COUNT.tolist()
    assert read.label_pair_count_KK.dtype == np.int64
    assert ARRAY in load_file(path)
    assert ARRAY not in read_state(path)
    assert not [name for name in read.network.module.state_dict() if "wsltool" in name]
    weights = load_model("small_gap", weights=path)
    assert weights.label_pair_count_KK is not None
    assert weights.label_pair_count_KK.tolist() == COUNT.tolist()


def test_a_training_that_starts_from_the_file_takes_the_network_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors", COUNT)
    for name, init in (("small_gap", str(path)), (str(path), "published")):
        start = start_network(name, 3, init=init)
        assert start.unused == ()
        assert set(start.matched) == set(start.network.module.state_dict())


def test_a_model_without_counts_and_a_file_of_before(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors", None)
    assert ARRAY not in load_file(path)
    assert load_model(str(path)).label_pair_count_KK is None
    with safe_open(path, "pt") as file:
        header = file.metadata()["wsltool"]
    assert '"format":2' in header
    written_anew(path, header.replace('"format":2', '"format":1'))
    read = load_model(str(path))
    assert read.label_pair_count_KK is None
    assert read.num_classes == 3


@pytest.mark.parametrize(
    ("count_KK", "said"),
    [
        (np.zeros((2, 2), np.int64), "counts label pairs of 2 classes, but has 3. Train it again"),
        (COUNT.astype(np.float32), r"label pairs are float32 of shape \(3, 3\); .* Train it again"),
        (COUNT - 5, r"label pairs are int64 of shape \(3, 3\); expected a symmetric matrix"),
    ],
)
def test_counts_that_cannot_be_used(
    tmp_path: Path, count_KK: np.ndarray[tuple[int, int], np.dtype[np.int64]], said: str
) -> None:
    path = saved(tmp_path / "m.safetensors", COUNT)
    written_anew(path, wsltool__label_pair_count=torch.from_numpy(count_KK))
    with pytest.raises(ModelError, match=rf"m\.safetensors: {said}"):
        load_model(str(path))


def test_undecided_labels_are_not_counted() -> None:
    label_NK = np.array([[1, 255], [1, 1], [0, 1]], np.uint8)
    data = Labelled(load_picture=lambda _row: np.zeros((1, 1, 3), np.uint8), label_NK=label_NK)
    assert data.label_pair_count_KK.tolist() == [[2, 1], [1, 2]]
    assert data.label_pair_count_KK is data.label_pair_count_KK, "counted once"
