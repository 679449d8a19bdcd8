"""A network that is ready for use: found by name, with all that belongs to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsltool.errors import ModelError, WeightsMissingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import Architecture, find_architecture, without_stride
from wsltool.nets.forms import find_form, formed, without_maps
from wsltool.nets.model_file import (
    Loss,
    ModelHeader,
    read_header,
    read_label_pair_count,
    write_model_file,
)
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.weights import file_sha256, fit_head, load_strict, read_state, state_sha256

__all__ = ["Loss", "Model", "load_model", "named_file", "probability64", "save_model"]


@dataclass
class Model:
    """A network with its classes and its preprocessing.

    Attributes
    ----------
    network
        In evaluation mode.
    arch
        Name of the architecture, as `load_model` takes it.
    class_name, class_id
        Of each class, where known; `class_id` is the source's own (wnid, COCO id).
    preprocess
        From picture to input.
    loss
        What it was trained with: ``softmax`` (one class an image), ``logistic`` (any), or
        ``softmax-bce`` (any, on the output of a softmax; Bency et al. 2016, eq. 1).
    fingerprint
        sha256 of the file of weights, or of the arrays where there is no file.
    provenance
        Where it comes from, plain values.
    count_padding
        Cells in the padding of a picture take part in pooling; always as in `network`.
    label_pair_count_KK
        In how many training images two classes are both present, int64 (num_classes,
        num_classes); None where nobody counted.
    """

    network: CamNetwork | PlainNetwork
    arch: str
    class_name: list[str] | None
    class_id: list[str] | None
    preprocess: Preprocess
    loss: Loss
    fingerprint: str
    provenance: dict[str, Any] = field(default_factory=dict)
    count_padding: bool = False
    label_pair_count_KK: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.count_padding = self.network.count_padding

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.network.num_classes

    @property
    def cam_network(self) -> CamNetwork:
        """The network, where it has class activation maps.

        Raises
        ------
        ModelError
            It has none.
        """
        if isinstance(self.network, PlainNetwork):
            raise ModelError(without_maps(self.arch))
        return self.network

    def probability(self, logit_NK: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Class probabilities (num_images, num_classes): softmax, or for ``logistic`` a sigmoid."""
        return probability64(self.loss, logit_NK).astype(np.float32)


def probability64(loss: Loss, logit_NK: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return class probabilities as `Model.probability`, with all their digits."""
    logit = np.asarray(logit_NK, np.float64)
    if loss != "logistic":
        power = np.exp(logit - logit.max(1, keepdims=True))
        return np.asarray(power / power.sum(1, keepdims=True))
    return np.asarray(np.exp(-np.logaddexp(0.0, -logit)))


def named_file(name: str, models_dir: Path | None = None) -> Path | None:
    """Return the model file that a name stands for, or None where there is none.

    Parameters
    ----------
    models_dir
        Default ``$WSLTOOL_MODELS``, else ``./models``.
    """
    if ":" in name or "/" in name:
        return None
    folder = models_dir or Path(os.environ.get("WSLTOOL_MODELS", "models"))
    path = folder / f"{name}.safetensors"
    return path if path.is_file() else None


def load_model(
    name: str,
    *,
    weights: Path | None = None,
    models_dir: Path | None = None,
    maps: bool = True,
) -> Model:
    """Find a model by file or name.

    Looked up in this order: a ``.safetensors`` file written by `save_model`;
    ``models_dir/NAME.safetensors``; a network of torchvision or EfficientNet-Lite with its
    published ImageNet weights; ``package.module:function``, which returns
    ``(torch module, preprocessing)`` and perhaps class names. With `weights` the name is an
    architecture and the file fills it; the number of classes is the file's. ``NAME@8`` is the
    network with a cell every 8 pixels (`set_output_stride`), ``NAME_fc`` its features under
    fully connected layers (`wsltool.nets.fc_networks.FcNetwork`).

    Parameters
    ----------
    name
        File or name.
    weights
        A ``.safetensors`` file or a plain state dict.
    models_dir
        Default ``$WSLTOOL_MODELS``, else ``./models``.
    maps
        Whether class activation maps are needed; without, `Model.network` is a
        `PlainNetwork` where there are none and the network splits
        (`wsltool.nets.split.find_split`).

    Raises
    ------
    ModelError
        No such model, a file that does not fit, no closed-form class activation map where
        one is needed, or neither that nor a place to split.
    WeightsMissingError
        A known architecture whose weights are not here.
    ExtraMissingError
        A package is not installed.
    """
    if name.endswith(".safetensors"):
        if weights is not None:
            raise ModelError(f"--weights {weights} needs the name of a network, got file {name}.")
        return _from_file(Path(name), None, maps)
    if weights is not None:
        return _from_weights(name, Path(weights), maps)
    file = named_file(name, models_dir)
    if file is not None:
        return _from_file(file, None, maps)
    architecture = _found(name, maps)
    if architecture.is_ready:
        names = architecture.class_name
        return _assemble(architecture, architecture.build(), maps=maps, class_name=names)
    if architecture.published is None:
        folder = models_dir or Path(os.environ.get("WSLTOOL_MODELS", "models"))
        raise WeightsMissingError(
            f"{name}: no weights are published for it. Train it first: wsltool train-cls "
            f"--model {name} IMAGES -o {folder / name}.safetensors; or pass --weights FILE."
        )
    find_form(architecture, architecture.build(), maps=maps)  # before a download
    return _filled(architecture, architecture.published(), architecture.class_name, maps)


def _found(name: str, maps: bool) -> Architecture:
    architecture = find_architecture(name)
    if maps and not architecture.has_maps:
        raise ModelError(without_maps(name))
    return architecture


def save_model(path: Path, model: Model, provenance: Mapping[str, Any]) -> None:
    """Write a model file: the architecture's own arrays, all else in the header.

    The bytes depend on the model and `provenance` alone. The file appears whole or not.

    Parameters
    ----------
    path
        Ends in ``.safetensors``; replaced where it exists.
    provenance
        Plain values for the header.

    Raises
    ------
    ModelError
        The path has another suffix, or cannot be written.
    """
    header = ModelHeader(
        arch=model.arch,
        num_classes=model.num_classes,
        class_name=model.class_name,
        class_id=model.class_id,
        preprocess=model.preprocess.to_header(),
        loss=model.loss,
        pool=model.network.pool,
        rectified=model.network.rectified,
        count_padding=model.network.count_padding,
        provenance=dict(provenance),
    )
    state = model.network.module.state_dict()
    write_model_file(path, state, header, model.label_pair_count_KK)


def _from_file(path: Path, name: str | None, maps: bool) -> Model:
    """Load a model file, as another output stride of its architecture if `name` says so."""
    header = read_header(path)
    if header is None:
        raise ModelError(
            f"{path}: not written by wsltool train-cls; expected its header. For plain weights "
            f"pass --model ARCHITECTURE --weights {path}."
        )
    size_px = Preprocess.from_header(header.preprocess).size_px
    architecture = _found(name or header.arch, maps).at(size_px)
    module = architecture.build()
    _fill(architecture, module, path)
    model = _assemble(architecture, module, maps=maps, header=header)
    if model.num_classes != header.num_classes:
        raise ModelError(
            f"{path}: has weights of {model.num_classes} classes, but its header says "
            f"{header.num_classes}."
        )
    model.fingerprint = file_sha256(path)
    model.label_pair_count_KK = read_label_pair_count(path, model.num_classes)
    return model


def _from_weights(name: str, path: Path, maps: bool) -> Model:
    header = read_header(path) if path.suffix == ".safetensors" else None
    if header is None:
        return _filled(_found(name, maps), path, None, maps)
    if without_stride(header.arch) != without_stride(name):
        raise ModelError(f'{path}: is a "{header.arch}", not "{name}". Pass --model {path}.')
    return _from_file(path, name, maps)


def _fill(architecture: Architecture, module: nn.Module, path: Path) -> None:
    state = read_state(path)
    if architecture.adapt is not None:
        state = architecture.adapt(state)
    fit_head(module, state)
    load_strict(module, state, str(path))


def _filled(
    architecture: Architecture, path: Path, class_name: Sequence[str] | None, maps: bool
) -> Model:
    module = architecture.build()
    _fill(architecture, module, path)
    model = _assemble(architecture, module, maps=maps, class_name=class_name)
    model.fingerprint = file_sha256(path)
    return model


def _network(
    architecture: Architecture,
    module: nn.Module,
    header: ModelHeader | None,
    size_px: int,
    maps: bool,
) -> CamNetwork | PlainNetwork:
    if header is not None and header.pool == "none":
        architecture = replace(architecture, has_maps=False)
    if maps and not architecture.has_maps:
        raise ModelError(without_maps(architecture.name))
    trained_here = architecture.has_maps and header is not None and not header.rectified
    probed = architecture.build() if trained_here else module  # a ReLU may hide all its maps
    return formed(
        architecture,
        module,
        find_form(architecture, probed, size_px=size_px, maps=maps),
        pool=header.pool if header else "gap",
        rectified=header.rectified if header else True,
        count_padding=header.count_padding if header else False,
    )


def _assemble(
    architecture: Architecture,
    module: nn.Module,
    *,
    maps: bool,
    class_name: Sequence[str] | None = None,
    header: ModelHeader | None = None,
) -> Model:
    """Find the form of a network and put everything together."""
    preprocess = Preprocess.from_header(header.preprocess) if header else architecture.preprocess
    network = _network(architecture, module, header, preprocess.size, maps)
    names = header.class_name if header else class_name
    if names is not None and len(names) != network.num_classes:
        raise ModelError(
            f"{architecture.name}: has {len(names)} class names for {network.num_classes} classes."
        )
    return Model(
        network=network.eval(),
        arch=architecture.name,
        class_name=None if names is None else list(names),
        class_id=header.class_id if header else None,
        preprocess=preprocess,
        loss=header.loss if header else "softmax",
        fingerprint="" if header else state_sha256(module.state_dict()),
        provenance=header.provenance if header else {},
    )
