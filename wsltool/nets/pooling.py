"""From class maps to class scores: one function a pooling head.

Every head takes maps (num_images, num_classes, row, column) of any size and, where not all
cells count, a mask of those that do. It computes in float32 at least, also under autocast.
NaN in a cell that counts gives NaN; a constant map gives its value; cells that do not count
have no influence, whatever they hold, and get no gradient.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from wsltool.errors import ModelError

__all__ = ["POOLS", "Pool", "canonical_pool", "find_pool", "gap", "gmp", "gwrp", "lse"]

POOLS: dict[str, float | None] = {"gap": None, "gmp": None, "lse": 1.0, "gwrp": 0.996}
"""Name of each pooling head, with the value that its parameter takes when left out."""

_GWRP_CELLS = 41 * 41
_LSE_RANGE = (1e-30, 1e30)  # beyond it only the limits, mean and maximum, can be told


class Pool(Protocol):
    """A pooling head whose parameter is filled in."""

    def __call__(self, map_NKHW: Tensor, valid_N1HW: Tensor | None = None) -> Tensor:
        """Return scores (num_images, num_classes) of class maps; see `gap`."""


def gap(map_NKHW: Tensor, valid_N1HW: Tensor | None = None) -> Tensor:
    """Global average pooling (Zhou et al. 2016, eq. 1), ``mean over cells``.

    Parameters
    ----------
    map_NKHW
        Class maps without bias, (num_images, num_classes, row, column) float.
    valid_N1HW
        Which cells count, (num_images, 1 or num_classes, row, column) bool; None for all.

    Returns
    -------
    Tensor
        (num_images, num_classes), float32 for half precisions.

    Raises
    ------
    ModelError
        The maps have no cell, an image has none that counts, or the mask does not fit.
    """
    x_NKP, valid_N1P = _cells(map_NKHW, valid_N1HW)
    if valid_N1P is None:
        return x_NKP.mean(2)
    return x_NKP.masked_fill(~valid_N1P, 0.0).sum(2) / valid_N1P.sum(2)


def gmp(map_NKHW: Tensor, valid_N1HW: Tensor | None = None) -> Tensor:
    """Global maximum pooling (Oquab et al. 2015, §3), ``max over cells``.

    Cells that tie for the maximum share its gradient. Parameters, result and errors as for
    `gap`.
    """
    x_NKP, valid_N1P = _cells(map_NKHW, valid_N1HW)
    if valid_N1P is not None:
        x_NKP = x_NKP.masked_fill(~valid_N1P, -math.inf)
    return x_NKP.amax(2)


def lse(map_NKHW: Tensor, valid_N1HW: Tensor | None = None, *, r: float = 1.0) -> Tensor:
    """Log-sum-exp pooling (Pinheiro & Collobert 2015), ``(1/r) log(mean over cells exp(r x))``.

    Between the mean (r → 0) and the maximum (r → ∞), and computed without overflow or
    cancellation at either end. Parameters, result and errors as for `gap`.

    Parameters
    ----------
    r
        Above 0.
    """
    r = min(max(r, _LSE_RANGE[0]), _LSE_RANGE[1])
    x_NKP, valid_N1P = _cells(map_NKHW, valid_N1HW)
    if valid_N1P is None:
        num_N1: Tensor | int = x_NKP.shape[2]
    else:
        x_NKP, num_N1 = x_NKP.masked_fill(~valid_N1P, -math.inf), valid_N1P.sum(2)
    top_NK = x_NKP.detach().amax(2)
    power_NKP = r * (x_NKP - top_NK[:, :, None])  # at most 0
    less_NKP = power_NKP.expm1()
    if valid_N1P is not None:
        less_NKP = less_NKP.masked_fill(~valid_N1P, 0.0)
    less_NK = less_NKP.sum(2) / num_N1  # mean of exp(power), less 1
    near_NK = less_NK.clamp(min=-0.5).log1p()
    far_NK = (power_NKP.exp().sum(2) / num_N1).log()
    return top_NK + torch.where(less_NK > -0.5, near_NK, far_NK) / r


def gwrp(map_NKHW: Tensor, valid_N1HW: Tensor | None = None, *, q: float = 0.996) -> Tensor:
    """Global weighted rank pooling (Kolesnikov & Lampert 2016, SEC).

    ``sum_j w_j x_(j)`` with the cells in falling order and weights ``w_j = p^j``, divided by
    their sum. q is the weight ratio on a 41×41 grid; for n cells in use ``p = q^(1681/n)``, so
    that an equal part of the map carries an equal part of the weight. Parameters, result and
    errors as for `gap`.

    Parameters
    ----------
    q
        0 … 1; 0 is the maximum, 1 the mean.
    """
    if q in (0.0, 1.0):
        return (gap if q else gmp)(map_NKHW, valid_N1HW)
    x_NKP, valid_N1P = _cells(map_NKHW, valid_N1HW)
    if valid_N1P is None:
        valid_N1P = torch.ones((1, 1, x_NKP.shape[2]), dtype=torch.bool, device=x_NKP.device)
    ranked_NKP = x_NKP.masked_fill(~valid_N1P, -math.inf).sort(2, descending=True).values
    num_N11 = valid_N1P.sum(2, keepdim=True)
    rank_P = torch.arange(x_NKP.shape[2], device=x_NKP.device)
    unused_N1P = rank_P >= num_N11
    weight_N1P = (math.log(q) * _GWRP_CELLS * (rank_P.to(x_NKP) / num_N11)).exp()
    weight_N1P = weight_N1P.masked_fill(unused_N1P, 0.0)
    ranked_NKP = ranked_NKP.masked_fill(unused_N1P, 0.0)
    return (weight_N1P * ranked_NKP).sum(2) / weight_N1P.sum(2)


def find_pool(spec: str) -> Pool:
    """Return the pooling head of a spec: ``gap``, ``gmp``, ``lse[:R]`` or ``gwrp[:Q]``.

    Raises
    ------
    ModelError
        There is no such head, or its parameter is out of its range.
    """
    name, value = _parse(spec)
    if name == "lse":
        return partial(lse, r=value)
    if name == "gwrp":
        return partial(gwrp, q=value)
    return gap if name == "gap" else gmp


def canonical_pool(spec: str) -> str:
    """Return a spec with its parameter filled in, such as ``lse:1`` for ``lse``.

    Raises
    ------
    ModelError
        As for `find_pool`.
    """
    name, value = _parse(spec)
    return name if POOLS[name] is None else f"{name}:{repr(value).removesuffix('.0')}"


def _parse(spec: str) -> tuple[str, float]:
    """Split a spec into name and parameter (0 for a head that has none)."""
    name, colon, text = spec.partition(":")
    default = POOLS.get(name)
    if name not in POOLS or (colon and default is None):
        raise ModelError(f'pool must be gap, gmp, lse, lse:R, gwrp or gwrp:Q, got "{spec}".')
    try:
        value = float(text) if colon else default or 0.0
    except ValueError:
        value = math.nan
    if name == "lse" and not 0 < value < math.inf:
        raise ModelError(f'pool lse:R: R must be a number above 0, got "{spec}".')
    if name == "gwrp" and not 0 <= value <= 1:
        raise ModelError(f'pool gwrp:Q: Q must be a number in 0 ... 1, got "{spec}".')
    return name, abs(value)  # -0 is 0


def _cells(map_NKHW: Tensor, valid_N1HW: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Check maps and mask; return both with the cells in one axis, maps in float32 or more."""
    num_images, num_classes, num_rows, num_cols = map_NKHW.shape
    if num_rows * num_cols == 0:
        raise ModelError(f"pooling: the maps have no cell, their shape is {tuple(map_NKHW.shape)}.")
    if map_NKHW.dtype in (torch.float16, torch.bfloat16):
        map_NKHW = map_NKHW.float()
    if valid_N1HW is None:
        return map_NKHW.flatten(2), None
    shape = tuple(valid_N1HW.shape)
    fitting = [(num_images, channels, num_rows, num_cols) for channels in (1, num_classes)]
    if valid_N1HW.dtype != torch.bool or shape not in fitting:
        raise ModelError(
            f"pooling: the mask is {valid_N1HW.dtype} {shape}, expected torch.bool {fitting[0]}."
        )
    valid_N1P = valid_N1HW.flatten(2)
    if not bool(valid_N1P.any(2).all()):
        image = int((~valid_N1P.any(2)).any(1).nonzero()[0])
        raise ModelError(f"pooling: image {image} of the batch has no cell that counts.")
    return map_NKHW.flatten(2), valid_N1P
