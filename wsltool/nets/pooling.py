"""From class maps to class scores: one function a pooling head."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from wsltool.errors import ModelError

__all__ = ["POOLS", "Pool", "find_pool", "gap"]

Pool = Callable[[Tensor], Tensor]
"""Takes maps (num_images, num_classes, row, column), returns scores (num_images, num_classes)."""


def gap(map_NKHW: Tensor) -> Tensor:
    """Global average pooling (Zhou et al. 2016, eq. 1), ``mean over cells``.

    Parameters
    ----------
    map_NKHW
        Class maps without bias, (num_images, num_classes, row, column) float.

    Returns
    -------
    Tensor
        (num_images, num_classes). NaN in a map gives NaN; a constant map gives its value.
    """
    return map_NKHW.mean((2, 3))


POOLS: dict[str, Pool] = {"gap": gap}


def find_pool(name: str) -> Pool:
    """Return the pooling head of that name.

    Raises
    ------
    ModelError
        There is none.
    """
    if name not in POOLS:
        raise ModelError(f'pool must be one of {", ".join(POOLS)}, got "{name}".')
    return POOLS[name]
