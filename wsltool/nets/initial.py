"""Where training starts: an architecture, the weights that fit it, a head for the classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wsltool.errors import ModelError, WeightsMissingError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import Architecture, find_architecture, is_known
from wsltool.nets.closed_form import ClosedForm
from wsltool.nets.forms import find_form, formed
from wsltool.nets.model_file import read_header
from wsltool.nets.models import named_file
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.split import Split
from wsltool.nets.weights import State, current_names, fit_head, is_auxiliary, read_state, set_head

__all__ = ["Start", "head_entries", "start_network"]

_MOST_NAMES = 5
_COUNTER = "num_batches_tracked"


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
        Names of the arrays that came from there, buffers of batch normalisation included.
    initialised
        Names of the arrays that start at random, or at zero or one by their architecture.
    unused
        Names in the file that the network has no place for.
    suppress_layer
        Name of the module whose output two-phase learning masks; None for none.
    """

    network: CamNetwork | PlainNetwork
    arch: str
    preprocess: Preprocess
    source: str
    matched: tuple[str, ...]
    initialised: tuple[str, ...]
    unused: tuple[str, ...]
    suppress_layer: str | None = None

    def summary(self) -> str:
        """Say in one line which arrays came from where, with millions (M) of numbers."""
        state = self.network.module.state_dict()
        if self.matched:
            loaded = f"{len(self.matched)} arrays ({_millions(state, self.matched)})"
            parts = [f"{loaded} from {Path(self.source).name}"]
        else:
            parts = ["no weights loaded"]
        fresh = [name for name in self.initialised if not name.endswith(_COUNTER)]
        if fresh:
            names = _layers(fresh, state)
            parts.append(f"initialised: {names} ({_millions(state, fresh)})")
        if self.unused:
            parts.append(f"not used: {_layers(self.unused, (*self.unused, *self.matched))}")
        return f"{self.arch}: {'; '.join(parts)}"


def _millions(state: Mapping[str, Tensor], names: Collection[str]) -> str:
    num = sum(state[name].numel() for name in names)
    return f"{num} numbers" if num < 1e5 else f"{num / 1e6:.1f} M numbers"


def _layers(names: Collection[str], all_names: Collection[str]) -> str:
    """Put the names of arrays in short: whole parts where no other array is in them."""
    rest = {n for n in set(all_names) - set(names) if not n.endswith(_COUNTER)}
    taken = {name.partition(".")[0] for name in rest}
    short = [
        name.rpartition(".")[0] or name if top in taken else top
        for name in names
        for top in [name.partition(".")[0]]
    ]
    unique = list(dict.fromkeys(short))
    more = f" and {len(unique) - _MOST_NAMES} more" if len(unique) > _MOST_NAMES else ""
    return ", ".join(unique[:_MOST_NAMES]) + more


def start_network(
    name: str,
    num_classes: int,
    *,
    init: str = "published",
    pool: str = "gap",
    seed: int = 0,
    count_padding: bool = False,
    size_px: int | None = None,
) -> Start:
    """Build a network to be trained.

    Arrays of equal name and shape are taken from `init`, the others start at random: those
    of the architecture by its own rule, a new head gaussian 0.01 with zero bias.

    Parameters
    ----------
    name
        As for `load_model`, except that a known architecture goes before a model file of its
        name; a model file stands for its architecture, and with ``published`` for its weights.
    num_classes
        Outputs of the head.
    init
        ``published`` (of torchvision or the extra; those of the backbone for a network of
        ours; none where nothing is published), ``none``, or a file of weights.
    pool
        The pooling head (`wsltool.nets.pooling.find_pool`). A network without maps pools
        nothing and takes ``gap`` and ``none`` alone.
    seed
        Of the random numbers; torch's global state is not touched.
    count_padding
        Whether cells in the padding of a picture take part in pooling.
    size_px
        Rows and columns of the input, where the architecture's own or the file's are not
        wanted; they decide what a network ``NAME_fc`` reads.

    Raises
    ------
    ModelError
        The name or the file is wrong, the file shares nothing with the network, there is
        neither a closed-form class activation map nor a place to split, or nothing to pool.
    WeightsMissingError
        Published weights cannot be reached.
    """
    preprocess, own_px = None, None
    file = Path(name) if name.endswith(".safetensors") else None
    if file is None and not is_known(name):
        file = named_file(name)
    if file is not None:
        header = read_header(file)
        if header is None:
            raise ModelError(f"{file}: not written by wsltool train-cls; expected its header.")
        init = str(file) if init == "published" else init
        name, preprocess = header.arch, Preprocess.from_header(header.preprocess)
        own_px = preprocess.size_px
    architecture = find_architecture(name).at(size_px or own_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = architecture.build()
        form = find_form(architecture, module, maps=False)  # tell before a download
        _check_pool(name, form, pool)
        given, source = _weights(architecture, module, init)
        state = given if architecture.adapt is None else architecture.adapt(given)
        state, fitting = _fill(module, state)
        if state and not fitting:
            raise ModelError(f"{source}: shares no array with {name}. Pass weights made for it.")
        network = formed(
            architecture, module, form, pool=pool, rectified=False, count_padding=count_padding
        )
        _fit_classes(network, num_classes, fitting)
    names = list(network.module.state_dict())
    return Start(
        network=network,
        arch=name,
        preprocess=preprocess or architecture.preprocess,
        source=source,
        matched=tuple(n for n in names if n in fitting),
        initialised=tuple(n for n in names if n not in fitting),
        unused=(
            *(n for n in state if n not in fitting),
            *(n for n in given if is_auxiliary(n) and n not in state),
        ),
        suppress_layer=architecture.suppress_layer,
    )


def _check_pool(name: str, form: ClosedForm | Split, pool: str) -> None:
    if isinstance(form, Split) and pool not in ("gap", "none"):
        raise ModelError(
            f"{name}: has no maps to pool, got pool {pool}. Leave out --pool, or use "
            "alexnet_sliding or vgg16_sliding."
        )


def _weights(architecture: Architecture, module: nn.Module, init: str) -> tuple[State, str]:
    """Return the arrays to start from and what to call them."""
    if init == "none":
        return {}, "none"
    if init != "published":
        return read_state(Path(init)), init
    if architecture.is_ready:
        return dict(module.state_dict()), architecture.name
    if architecture.base is not None and architecture.base.is_ready:
        return dict(architecture.base.build().state_dict()), architecture.base.name
    find = architecture.published or architecture.backbone
    if find is None:
        return {}, "none"
    try:
        file = find()
    except WeightsMissingError as error:
        text = str(error).replace("--weights FILE", "--init FILE, or --init none")
        raise WeightsMissingError(text) from error
    return read_state(file), file.name


def _fill(module: nn.Module, state: State) -> tuple[State, State]:
    """Load what fits; return all arrays under today's names, and those that fit."""
    fit_head(module, state)
    own = module.state_dict()
    named = current_names(state, own)
    fitting = {n: v for n, v in named.items() if n in own and v.shape == own[n].shape}
    module.load_state_dict(fitting, strict=False)
    return named, fitting


def _fit_classes(network: CamNetwork | PlainNetwork, num_classes: int, fitting: State) -> None:
    """Replace the head unless its weights fit the classes already."""
    name = network.head_name
    weight = f"{name}.weight"
    if weight in fitting and fitting[weight].shape[0] == num_classes:
        return
    for entry in (weight, f"{name}.bias"):
        fitting.pop(entry, None)
    set_head(network.module, name, num_classes)
    nn.init.normal_(network.head.weight, std=0.01)
    if network.head.bias is not None:
        nn.init.zeros_(network.head.bias)


def head_entries(network: CamNetwork | PlainNetwork, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the head's arrays."""
    return [name for name in state if name.rpartition(".")[0] == network.head_name]
