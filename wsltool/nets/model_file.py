"""The file of a trained model: safetensors, with all that is no array in its header."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wsltool.errors import ModelError, WeightsMissingError
from wsltool.localize.cooccurrence import check_pair_count
from wsltool.nets.weights import OURS, fsync_replace, one_line

__all__ = [
    "FORMAT",
    "Loss",
    "ModelHeader",
    "read_header",
    "read_label_pair_count",
    "write_model_file",
]

FORMAT = 2
"""Of what is written; 1 is read as well, which has the network's arrays alone."""

_READ = (1, FORMAT)
_KEY = "wsltool"
_PAIR_COUNT = f"{OURS}label_pair_count"

Loss = Literal["softmax", "logistic", "softmax-bce"]
"""What a network was trained with; see `wsltool.nets.losses`."""


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says beside its arrays; see `wsltool.nets.models.Model`.

    Attributes
    ----------
    pool
        The pooling head, its parameter filled in; ``none`` where there are no maps.
    rectified
        A ReLU stands between the class maps and their mean (SqueezeNet as published).
    count_padding
        Cells in the padding of a picture take part in pooling; absent in older files: false.
    """

    arch: str
    num_classes: int
    class_name: list[str] | None
    class_id: list[str] | None
    preprocess: dict[str, Any]
    loss: Loss
    pool: str
    rectified: bool
    provenance: dict[str, Any]
    count_padding: bool = False


def write_model_file(
    path: Path,
    state: Mapping[str, Tensor],
    header: ModelHeader,
    label_pair_count_KK: NDArray[np.int64] | None = None,
) -> None:
    """Write arrays and header, whole or not at all.

    The counts of label pairs, where there are some, are an array beside those of the network
    (``wsltool.label_pair_count``).

    Raises
    ------
    ModelError
        The path does not end in ``.safetensors``, or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: a model file must end in .safetensors.")
    text = json.dumps(
        {"format": FORMAT, **asdict(header)}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    arrays = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}
    if label_pair_count_KK is not None:
        arrays[_PAIR_COUNT] = torch.from_numpy(label_pair_count_KK.astype(np.int64))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch()  # made here, so that others may read it as they may other files
        mode = temporary.stat().st_mode
        save_file(arrays, temporary, metadata={_KEY: text})
        temporary.chmod(mode)
        fsync_replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be written ({one_line(error)}).") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_header(path: Path) -> ModelHeader | None:
    """Read the header of a safetensors file; None where another program wrote it.

    Raises
    ------
    WeightsMissingError
        There is no such file.
    ModelError
        The file is cut off or damaged, or of a newer format.
    """
    if not path.is_file():
        raise WeightsMissingError(f"{path}: no such model file.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a complete safetensors file ({one_line(error)}). Write it again."
        ) from error
    return _parse(metadata[_KEY], path) if _KEY in metadata else None


def read_label_pair_count(path: Path, num_classes: int) -> NDArray[np.int64] | None:
    """Read in how many training images two classes of a model are both present.

    Returns
    -------
    count_KK
        (num_classes, num_classes) int64, see `wsltool.localize.cooccurrence.label_pair_count`;
        None where the file, which `read_header` has read, holds none.

    Raises
    ------
    ModelError
        They are no counts of pairs of so many classes.
    """
    with safe_open(path, "pt") as file:
        if _PAIR_COUNT not in file.keys():  # noqa: SIM118  (no dict: it cannot be iterated)
            return None
        held: NDArray[Any] = file.get_tensor(_PAIR_COUNT).numpy()
    try:
        count_KK = check_pair_count(held)
    except ModelError as error:
        raise ModelError(f"{path}: {error} Train it again.") from error
    if len(count_KK) != num_classes:
        raise ModelError(
            f"{path}: counts label pairs of {len(count_KK)} classes, but has {num_classes}. Train "
            "it again."
        )
    return count_KK


def _parse(text: str, path: Path) -> ModelHeader:
    try:
        values = json.loads(text)
        number = values.pop("format")
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{path}: its header is damaged ({one_line(error)}).") from error
    if number not in _READ:
        raise ModelError(
            f"{path}: has format {number}, but this wsltool reads formats up to {FORMAT}. "
            "Upgrade wsltool."
        )
    try:
        header = ModelHeader(**values)
    except TypeError as error:
        raise ModelError(f"{path}: its header is damaged ({one_line(error)}).") from error
    if header.loss not in get_args(Loss):
        names = ", ".join(get_args(Loss))
        raise ModelError(f'{path}: loss must be one of {names}, got "{header.loss}".')
    for name in ("rectified", "count_padding"):
        if not isinstance(getattr(header, name), bool):
            raise ModelError(
                f"{path}: {name} must be true or false, got {getattr(header, name)!r}."
            )
    return header
