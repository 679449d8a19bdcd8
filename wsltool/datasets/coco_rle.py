"""COCO's compressed run-length code of a mask, decoded (``maskApi.c``, ``rleFrString``)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsltool.errors import DatasetError

__all__ = ["decode_rle"]

_MOST_CHARACTERS = 7  # of one number: 35 bits


def decode_rle(counts: str, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the mask behind a compressed code, uint8 (H, W) of 0 and 1.

    Runs alternate between 0 and 1, beginning with 0, down the columns of the picture. From
    the fourth on, a run is told as the difference to the last but one. A number is written five
    bits a character, the lowest first, each with a sixth bit that says whether another one
    follows; the fifth bit of the last one is the sign.

    Parameters
    ----------
    counts : str
        The code.
    shape : two of int
        Height and width in pixels.

    Raises
    ------
    DatasetError
        The code is empty or broken, or its runs do not fill the picture exactly (where
        pycocotools leaves the rest of the mask as the memory happened to be).
    """
    height, width = shape
    run_M = _runs(counts)
    if run_M is None:
        raise DatasetError(f'mask "{counts[:20]}" is no compressed run-length code of COCO.')
    if (run_M < 0).any() or int(run_M.sum()) != height * width:
        raise DatasetError(
            f'mask "{counts[:20]}" tells {int(run_M.sum())} pixels; expected {width}x{height}.'
        )
    value_M = (np.arange(len(run_M)) % 2).astype(np.uint8)
    return np.repeat(value_M, run_M).reshape(width, height).T


def _runs(counts: str) -> npt.NDArray[np.int64] | None:
    """Return the lengths of the runs, None for a broken code."""
    code_P = np.frombuffer(counts.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not len(code_P) or (code_P < 0).any() or (code_P >= 64).any() or code_P[-1] & 0x20:
        return None
    end_M = np.flatnonzero(code_P & 0x20 == 0)
    start_M = np.concatenate([[0], end_M[:-1] + 1])
    num_M = end_M + 1 - start_M
    if num_M.max() > _MOST_CHARACTERS:
        return None
    place_P = np.arange(len(code_P)) - np.repeat(start_M, num_M)
    run_M: npt.NDArray[np.int64] = np.add.reduceat((code_P & 0x1F) << (5 * place_P), start_M)
    run_M -= np.where(code_P[end_M] & 0x10, 1 << (5 * num_M), 0)
    for first in (1, 2):
        run_M[first::2] = np.cumsum(run_M[first::2])
    return run_M
