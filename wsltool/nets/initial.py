"""Where training starts: an architecture, the weights that fit it, a head for the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError, WeightsMissingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import Architecture, find_architecture
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.model_file import read_header
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.weights import current_names, fit_head, read_state, set_head

__all__ = ["Start", "start_network"]


@dataclass(frozen=True)
class Start:
    """A network before training.

    Attributes
    ----------
    network
        With a head for the classes; always without a ReLU behind the class maps.
    arch
        Name of the architecture.
    preprocess
        As its weights were made for.
    source
        Where weights came from: a file, ``none``, or the architecture's own.
    matched
        Names of the arrays that came from there.
    initialised
        Names of the arrays that start at random.
    unused
        Names in the file that the network has no place for.
    """

    network: CamNetwork
    arch: str
    preprocess: Preprocess
    source: str
    matched: tuple[str, ...]
    initialised: tuple[str, ...]
    unused: tuple[str, ...]


def start_network(
    name: str, num_classes: int, *, init: str = "published", pool: str = "gap", seed: int = 0
) -> Start:
    """Build a network to be trained.

    Arrays of equal name and shape are taken from `init`, the others start at random: those
    of the architecture by its own rule, a new head gaussian 0.01 with zero bias.

    Parameters
    ----------
    name
        As for `load_model`; a model file stands for its architecture, and with ``published``
        for its weights.
    num_classes
        Outputs of the head.
    init
        ``published`` (of torchvision or the extra; for ``vgg_gap`` those of ``vgg16``; none
        where nothing is published), ``none``, or a file of weights.
    seed
        Of the random numbers; torch's global state is not touched.

    Raises
    ------
    ModelError
        The name or the file is wrong, the file shares nothing with the network, or there is
        no closed-form class activation map.
    WeightsMissingError
        Published weights cannot be reached.
    """
    preprocess = None
    if name.endswith(".safetensors"):
        header = read_header(Path(name))
        if header is None:
            raise ModelError(f"{name}: not written by wsltool train-cls; expected its header.")
        init = name if init == "published" else init
        name, preprocess = header.arch, Preprocess.from_header(header.preprocess)
    architecture = find_architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = architecture.build()
        state, source = _weights(architecture, module, init)
        fit_head(module, state)
        own = module.state_dict()
        state = current_names(state, own)
        fitting = {n: v for n, v in state.items() if n in own and v.shape == own[n].shape}
        if state and not fitting:
            raise ModelError(f"{source}: shares no array with {name}. Pass weights made for it.")
        module.load_state_dict(fitting, strict=False)
        network = _with_head(architecture, module, num_classes, fitting, pool)
    names = list(network.module.state_dict())
    return Start(
        network=network,
        arch=name,
        preprocess=preprocess or architecture.preprocess,
        source=source,
        matched=tuple(n for n in names if n in fitting),
        initialised=tuple(n for n in names if n not in fitting),
        unused=tuple(n for n in state if n not in fitting),
    )


def _weights(
    architecture: Architecture, module: nn.Module, init: str
) -> tuple[dict[str, Tensor], str]:
    """Return the arrays to start from and what to call them."""
    if init == "none":
        return {}, "none"
    if init != "published":
        return read_state(Path(init)), init
    if architecture.is_ready:
        return dict(module.state_dict()), architecture.name
    find = architecture.published or architecture.backbone
    if find is None:
        return {}, "none"
    find_closed_form(module, architecture.name, architecture.preprocess.size)  # before a download
    try:
        file = find()
    except WeightsMissingError as error:
        text = str(error).replace("--weights FILE", "--init FILE, or --init none")
        raise WeightsMissingError(text) from error
    return read_state(file), file.name


def _with_head(
    architecture: Architecture,
    module: nn.Module,
    num_classes: int,
    fitting: dict[str, Tensor],
    pool: str,
) -> CamNetwork:
    """Find the head; replace it unless its weights fit the classes already."""
    form = find_closed_form(module, architecture.name, architecture.preprocess.size)
    weight = f"{form.head}.weight"
    network = CamNetwork(module, form, pool=pool, rectified=False)
    if weight in fitting and fitting[weight].shape[0] == num_classes:
        return network
    for entry in (weight, f"{form.head}.bias"):
        fitting.pop(entry, None)
    set_head(module, form.head, num_classes)
    nn.init.normal_(network.head.weight, std=0.01)
    if network.head.bias is not None:
        nn.init.zeros_(network.head.bias)
    return network


def head_entries(network: CamNetwork, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the head's arrays."""
    return [name for name in state if name.rpartition(".")[0] == network.form.head]
