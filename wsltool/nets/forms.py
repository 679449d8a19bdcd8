"""What a network is here: one with class activation maps, or one that splits under its head."""

from __future__ import annotations

from torch import nn

from wsltool.errors import ModelError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.catalogue import Architecture
from wsltool.nets.closed_form import ClosedForm, find_closed_form
from wsltool.nets.plain_network import PlainNetwork
from wsltool.nets.split import Split, find_split, probe_split

__all__ = ["find_form", "formed", "without_maps"]


def find_form(
    architecture: Architecture, module: nn.Module, *, size_px: int | None = None, maps: bool
) -> ClosedForm | Split:
    """Return the closed form of a network's maps, or else where it splits.

    Parameters
    ----------
    module
        As `architecture` builds it.
    size_px
        Rows and columns of its input; None for the architecture's.
    maps
        Whether class activation maps are needed.

    Raises
    ------
    ModelError
        It has no maps and they are needed, or it has none and does not split.
    """
    name, size_px = architecture.name, size_px or architecture.preprocess.size
    if not architecture.has_maps:
        return find_split(module, name, size_px)
    try:
        return find_closed_form(module, name, size_px)
    except ModelError as error:
        if not architecture.can_split:
            raise
        split = probe_split(module, size_px)
        if isinstance(split, Split) and not maps:
            return split
        if isinstance(split, Split):
            raise ModelError(without_maps(name)) from error
        if maps:
            raise
        raise ModelError(
            f"{error} Nor does it split under fully connected layers that read a grid: {split}."
        ) from error


def without_maps(name: str) -> str:
    """Say that a network with fully connected layers has no maps, and what can be done."""
    if name.endswith("_fc"):
        other = name.removesuffix("_fc")
    elif name.endswith("_adapted"):
        other = name.replace("_adapted", "_sliding")
    else:
        other = "vgg_gap"
    return (
        f"{name}: no closed-form class activation map: fully connected layers read the whole "
        "grid of its features, not their mean. Use a network that has maps, such as --model "
        f"{other}, or wsltool beam-search, which needs none."
    )


def formed(
    architecture: Architecture,
    module: nn.Module,
    form: ClosedForm | Split,
    *,
    pool: str,
    rectified: bool,
    count_padding: bool,
) -> CamNetwork | PlainNetwork:
    """Put a network together; `pool` and what follows are those of `CamNetwork`."""
    if isinstance(form, Split):
        return PlainNetwork(module, form)
    return CamNetwork(
        module,
        form,
        pool=pool,
        rectified=rectified,
        count_padding=count_padding,
        window=architecture.window,
    )
