"""Storing numbers in half the space, where it holds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsltool.errors import UsageError

__all__ = ["as_float16"]

_LARGEST = 65504


def as_float16(values: np.ndarray[Any, Any], option: str, what: str) -> np.ndarray[Any, Any]:
    """Return finite numbers as float16.

    Raises
    ------
    UsageError
        One is too large; the message names `option` and `what` holds it.
    """
    largest = float(np.abs(values).max(initial=0))
    if largest > _LARGEST:
        raise UsageError(
            f"{option} float16 holds values up to {_LARGEST}, {what} has {largest:g}. "
            f"Pass {option} float32 --overwrite."
        )
    return values.astype(np.float16)
