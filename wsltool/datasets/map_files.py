"""Maps of other tools: one ``.npy`` file an image, never unpickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from wsltool.errors import BadImageError

__all__ = ["MapHeader", "read_map_header", "read_maps"]

_DIMENSIONS = (2, 3)
_KINDS = "buif"
_MOST_BYTES = 8
_MOST_CELLS = 2**27
_EXACT_IN_FLOAT32 = 2  # bytes of an integer


@dataclass(frozen=True)
class MapHeader:
    """What the header of a file says.

    Attributes
    ----------
    num_maps, num_rows, num_cols : int
        Its shape; a file of two axes holds one map.
    is_double : bool
        Whether float32 may not hold its values exactly.
    """

    num_maps: int
    num_rows: int
    num_cols: int
    is_double: bool


def read_map_header(path: Path) -> MapHeader:
    """Read shape and dtype of a file; nothing else of it is read.

    Raises
    ------
    BadImageError
        It cannot be read, is no ``.npy`` file, holds Python objects or other things than real
        numbers of at most 64 bits, or has no cell or not two or three axes.
    """
    try:
        with path.open("rb") as file:
            shape, dtype = _header(file)
    except OSError as error:
        raise BadImageError(f"{path.name}: cannot be read, {error.strerror}.") from error
    except MemoryError:
        raise
    except Exception as error:  # numpy fails on a broken header in many classes
        raise BadImageError(f"{path.name}: no .npy file ({_first_line(error)}).") from error
    if dtype.hasobject:
        raise BadImageError(
            f"{path.name}: holds pickled Python objects, which are never read: they may run any "
            "code. Save a plain array of numbers with numpy.save."
        )
    if dtype.kind not in _KINDS or dtype.itemsize > _MOST_BYTES:
        raise BadImageError(
            f"{path.name}: holds {dtype}, expected real numbers of at most 64 bits."
        )
    if len(shape) not in _DIMENSIONS or not all(size > 0 for size in shape):
        raise BadImageError(
            f"{path.name}: has shape {shape}, expected (rows, columns) or (maps, rows, columns) "
            "with at least one cell."
        )
    if np.prod(shape, dtype=np.float64) > _MOST_CELLS:
        raise BadImageError(f"{path.name}: has shape {shape}, more than {_MOST_CELLS} cells.")
    small = dtype.itemsize <= (4 if dtype.kind == "f" else _EXACT_IN_FLOAT32)
    num_maps, num_rows, num_cols = shape if len(shape) == max(_DIMENSIONS) else (1, *shape)
    return MapHeader(num_maps, num_rows, num_cols, is_double=not small)


def read_maps(path: Path) -> npt.NDArray[Any]:
    """Read the maps of an image, real numbers of shape (S, H, W), all finite.

    Raises
    ------
    BadImageError
        As `read_map_header`, and where the file is cut off or holds NaN or an infinity.
    """
    header = read_map_header(path)
    try:
        values: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise BadImageError(f"{path.name}: cannot be read ({_first_line(error)}).") from error
    values = values.reshape(header.num_maps, header.num_rows, header.num_cols)
    odd_SHW = ~np.isfinite(values)
    if odd_SHW.any():
        slot, row, col = (int(place[0]) for place in np.nonzero(odd_SHW))
        raise BadImageError(
            f"{path.name}: holds {values[slot, row, col]} in map {slot}, row {row}, column {col}; "
            "expected finite numbers."
        )
    return values


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"format {version[0]}.{version[1]}, expected 1.0 or 2.0")
    return shape, dtype


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
