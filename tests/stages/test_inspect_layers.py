"""Layers of a model, also of one whose weights are not here."""

from __future__ import annotations

import pytest

from wsltool.errors import WeightsMissingError
from wsltool.stages.inspect import inspect_layers


def test_without_weights_names_and_shapes_are_told_with_random_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("WSLTOOL_MODELS", str(tmp_path / "none"))
    found = inspect_layers("small_gap")
    assert found["random_weights"] is True
    (default,) = (layer for layer in found["layers"] if layer["default"])
    assert (default["name"], default["channels"]) == ("features", 128)
    assert default["grid"] == [14, 14]
    assert default["nonnegative"] is True  # it ends with a ReLU


def test_a_file_that_was_named_must_be_there(tmp_path):
    for name, weights in ((str(tmp_path / "no.safetensors"), None), ("small_gap", "no.pt")):
        with pytest.raises(WeightsMissingError, match=r"no\.(safetensors|pt): "):
            inspect_layers(name, weights=weights)
