"""What training reads: augmented pictures, or pooled features that are computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wsltool.errors import BadImageError, TrainingError, WslError
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.compute import Precision, computing, told_in_one_line
from wsltool.nets.inference import LoadPicture
from wsltool.nets.loading import load_batches
from wsltool.nets.preprocess import Preprocess
from wsltool.nets.weights import fsync_replace

__all__ = ["Examples", "epoch_batches", "picture_batches", "pooled_features", "write_text"]

_FLUSH_EVERY = 32  # batches


@dataclass(frozen=True)
class Examples:
    """Pictures to learn from.

    Attributes
    ----------
    load_picture, rows
        `load_picture` takes one of `rows`.
    preprocess
        From picture to input.
    mirror
        Show half of the pictures mirrored.
    crop_area
        Smallest share of a picture that a random crop shows, in (0, 1]; 1 for no crop.
    seed
        Every choice is drawn from (seed, epoch, row), whichever process makes it.
    """

    load_picture: LoadPicture
    rows: Sequence[int]
    preprocess: Preprocess
    mirror: bool
    crop_area: float
    seed: int

    def plain(self) -> Examples:
        """Return the same without random changes."""
        return replace(self, mirror=False, crop_area=1.0)


class _Shown(NamedTuple):
    place: int
    input_CHW: NDArray[np.uint8] | None
    failure: WslError | None


class _Pictures(Dataset[_Shown]):
    """Pictures as one epoch shows them."""

    def __init__(self, examples: Examples, epoch: int) -> None:
        self.examples = examples
        self.epoch = epoch

    def __getitem__(self, place: int) -> _Shown:
        row = self.examples.rows[place]
        try:
            return _Shown(place, self._show(row), None)
        except BadImageError as error:
            return _Shown(place, None, BadImageError(f"row {row}: {error}"))
        except WslError as error:
            return _Shown(place, None, error)

    def _show(self, row: int) -> NDArray[np.uint8]:
        examples = self.examples
        picture_HWC = examples.load_picture(row)
        random = np.random.default_rng((examples.seed, self.epoch, row))
        if examples.crop_area < 1:
            picture_HWC = _random_crop(picture_HWC, examples.crop_area, random)
        input_CHW, _ = examples.preprocess.apply(picture_HWC)
        mirrored = examples.mirror and random.random() < 0.5
        return np.ascontiguousarray(input_CHW[:, :, ::-1]) if mirrored else input_CHW


def _random_crop(
    picture_HWC: NDArray[np.uint8], smallest: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut out a share of at least `smallest`, its proportions changed by at most 4/3."""
    height_px, width_px = picture_HWC.shape[:2]
    side = np.sqrt(random.uniform(smallest, 1.0))
    stretch = np.exp(random.uniform(-1, 1) * np.log(4 / 3) / 2)
    rows = min(height_px, max(1, round(height_px * side / stretch)))
    cols = min(width_px, max(1, round(width_px * side * stretch)))
    top = int(random.integers(0, height_px - rows + 1))
    left = int(random.integers(0, width_px - cols + 1))
    return picture_HWC[top : top + rows, left : left + cols]


def _collate(items: list[_Shown]) -> tuple[list[int], Tensor | None, WslError | None]:
    for item in items:
        if item.failure is not None:
            return [], None, item.failure
    inputs = np.stack([item.input_CHW for item in items if item.input_CHW is not None])
    return [item.place for item in items], torch.from_numpy(inputs), None


def epoch_batches(num: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the places 0 … num − 1 in the random order of one epoch, cut into batches.

    A last batch of one is joined to the one before it, since batch normalisation cannot
    learn from one picture.
    """
    order = np.random.default_rng((seed, epoch)).permutation(num).tolist()
    batches = [order[start : start + batch_size] for start in range(0, num, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches


def picture_batches(
    examples: Examples,
    batches: Sequence[Sequence[int]],
    epoch: int,
    device: torch.device,
    workers: int,
) -> Generator[tuple[list[int], Tensor]]:
    """Yield places and normalised pictures (num_images, 3, row, column) of one epoch.

    Raises
    ------
    BadImageError
        A picture cannot be used; the message names its row.
    """
    pin = device.type == "cuda"
    loaded = load_batches(_Pictures(examples, epoch), batches, _collate, workers=workers, pin=pin)
    with closing(loaded):
        for places, input_NCHW, failure in loaded:
            if failure is not None or input_NCHW is None:
                raise failure or TrainingError("an empty batch was read.")
            yield places, examples.preprocess.normalise(input_NCHW.to(device, non_blocking=True))


def pooled_features(
    network: CamNetwork,
    examples: Examples,
    folder: Path,
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    workers: int,
    on_features: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Compute the spatial mean of the features of every picture, once.

    They are kept in ``features.npy`` in `folder`, mapped into memory, with a note of how far
    they are done; a call after an interruption goes on from there.

    Returns
    -------
    ndarray
        (num_images, num_views, num_channels) float32; the second view, if `examples` are
        mirrored, is of the mirrored picture.
    """
    num_views = 2 if examples.mirror else 1
    shape = (len(examples.rows), num_views, network.num_channels)
    file, note = folder / "features.npy", folder / "features.json"
    plan = {"shape": list(shape), "fingerprint": _fingerprint(network, examples)}
    num_done = _num_done(file, note, plan)
    mode: Any = "r+" if num_done else "w+"
    feature_NVC: Any = open_memmap(file, mode, np.float32, shape)
    starts = range(num_done, len(examples.rows), batch_size)
    batches = [list(range(s, min(s + batch_size, len(examples.rows)))) for s in starts]
    with closing(picture_batches(examples.plain(), batches, 0, device, workers)) as loaded:
        for count, (places, x_NCHW) in enumerate(loaded, 1):
            for view in range(num_views):
                x = x_NCHW.flip(3) if view else x_NCHW
                feature_NVC[places, view] = _pool(network, x, device, precision)
            if on_features is not None:
                on_features(len(places))
            if count % _FLUSH_EVERY == 0 or count == len(batches):
                feature_NVC.flush()
                write_text(note, json.dumps({**plan, "num_done": places[-1] + 1}))
    return np.asarray(feature_NVC)


@torch.inference_mode()
def _pool(
    network: CamNetwork, x_NCHW: Tensor, device: torch.device, precision: Precision
) -> NDArray[np.float32]:
    with computing(device, precision), told_in_one_line(f"features of {len(x_NCHW)} pictures"):
        mean_NC = network(x_NCHW).feature_NCHW.float().mean((2, 3))
    return np.asarray(mean_NC.cpu().numpy(), np.float32)


def _fingerprint(network: CamNetwork, examples: Examples) -> str:
    """Tell features of other pictures, weights or preprocessing from these."""
    digest = hashlib.sha256(repr((list(examples.rows), examples.preprocess)).encode())
    for name, value in sorted(network.module.state_dict().items()):
        if name.rpartition(".")[0] != network.form.head:
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _num_done(file: Path, note: Path, plan: dict[str, Any]) -> int:
    """Rows of an earlier call's features that can be used."""
    try:
        written = json.loads(note.read_text())
        num_done = int(written.pop("num_done"))
    except (OSError, ValueError, KeyError):
        return 0
    return num_done if written == plan and file.is_file() else 0


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    fsync_replace(temporary, path)
