"""Stage ``inspect``: what is in a store and where it came from, or which layers a model has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsltool.errors import WeightsMissingError
from wsltool.stages.options import PathLike
from wsltool.stores.open import open_store

if TYPE_CHECKING:
    from wsltool.nets.models import Model

__all__ = ["inspect", "inspect_layers"]

_NUM_CLASSES = 1000  # of a head without weights: those of ILSVRC


def inspect(input: PathLike) -> dict[str, Any]:
    """Return what a store holds and where it came from.

    Parameters
    ----------
    input : path
        A store of any kind.

    Returns
    -------
    dict
        ``path``, the root attribute ``wsltool`` under ``meta``, the other ``attributes``,
        ``num_images``, and ``arrays``: name to dims, shape and dtype.

    Raises
    ------
    StoreUnfinishedError
        Its writer has not finished; the message says how far it got.
    """
    with open_store(Path(input)) as store:
        return {
            "path": str(store.path),
            "meta": store.meta,
            "attributes": {k: v for k, v in store.attributes.items() if k != "wsltool"},
            "num_images": len(store),
            "arrays": {
                name: {
                    "dims": list(store.dims(name)),
                    "shape": list(store.shape(name)),
                    "dtype": store.dtype(name),
                }
                for name in store.names
            },
        }


def inspect_layers(model: PathLike, *, weights: PathLike | None = None) -> dict[str, Any]:
    """Return the layers of a model whose activations `extract_features` can take.

    An architecture whose weights are not here is listed with random ones: names and shapes are
    the same.

    Parameters
    ----------
    model : str or path
        A model file, a name, or ``package.module:function``.
    weights : path, optional
        Weights to load into the architecture `model`.

    Returns
    -------
    dict
        ``model`` (its architecture), ``random_weights``, ``input_size`` and ``layers``, in the
        order in which they run: ``name``, ``kind``, ``channels``, ``grid`` (rows and columns at
        that input size), ``nonnegative`` (on pictures of noise), ``default``.

    Raises
    ------
    ModelError
        There is no such model, or it fails on its input size.
    WeightsMissingError
        The file `weights` is not there.
    """
    from wsltool.nets.layers import list_layers

    loaded, is_random = _loaded(os.fspath(model), None if weights is None else Path(weights))
    return {
        "model": loaded.arch,
        "random_weights": is_random,
        "input_size": loaded.preprocess.size_px,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "channels": layer.num_channels,
                "grid": list(layer.grid),
                "nonnegative": layer.nonnegative,
                "default": layer.is_default,
            }
            for layer in list_layers(loaded)
        ],
    }


def _loaded(name: str, weights: Path | None) -> tuple[Model, bool]:
    """Return a model, and whether its weights are random because there are none here."""
    from wsltool.nets.initial import start_network
    from wsltool.nets.models import Model, load_model

    try:
        return load_model(name, weights=weights, maps=False), False
    except WeightsMissingError:
        if weights is not None or name.endswith(".safetensors"):
            raise
    start = start_network(name, _NUM_CLASSES, init="none")
    model = Model(
        network=start.network.eval(),
        arch=start.arch,
        class_name=None,
        class_id=None,
        preprocess=start.preprocess,
        loss="softmax",
        fingerprint="",
    )
    return model, True
