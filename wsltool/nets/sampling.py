"""Which pictures an epoch shows, in which order and batches, and how."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsltool.errors import TrainingError
from wsltool.nets.augment import Augment

__all__ = ["Draw", "epoch_batches", "ordered_batches", "stream"]

_MIRRORED, _SCALE, _BALANCE = 1, 2, 3


class Draw(NamedTuple):
    """One appearance of a picture in an epoch.

    Attributes
    ----------
    place
        Which of the examples, from 0.
    position
        In the epoch, from 0; with seed and epoch it decides what is random of the picture.
    mirrored
        Left is right.
    scale
        Factor of the input's size, the same for a whole batch.
    """

    place: int
    position: int
    mirrored: bool = False
    scale: float = 1.0


def epoch_batches(
    num: int,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: Augment = Augment(),  # noqa: B008
    label_NK: NDArray[np.uint8] | None = None,
) -> list[list[Draw]]:
    """Return what one epoch shows, in order, cut into batches.

    It depends on the arguments alone. Without ``augment.balance`` each of the examples is
    shown once, in the same order whatever else `augment` says. A last batch of one is joined
    to the one before it, since batch normalisation cannot learn from one picture.

    With ``augment.balance`` (Bency et al. 2016, §4.1) an epoch still has `num` draws. An
    example without a class that is present is drawn once, as without balance. The other
    draws are dealt to the classes in turn, going on from epoch to epoch; each class goes
    through its own examples in random order, all of them before one comes again. So, counted
    from the first epoch, classes differ by at most 1 draw, and so do the examples of a
    class. An example of several classes can be drawn for each of them and counts for the one
    that it was drawn for. A class without examples is never drawn.

    Parameters
    ----------
    num
        Number of examples; 0 gives no batch.
    batch_size
        Examples a batch, at least 1.
    seed, epoch
        From 0.
    augment
        Of which ``mirror``, ``scale`` and ``balance`` are decided here.
    label_NK
        (num, num_classes) uint8: 0 absent, 1 present, 255 undecided, which is not present.
        Read with ``balance`` only.

    Raises
    ------
    TrainingError
        No batch size, or ``balance`` without labels for all examples.
    """
    if batch_size < 1:
        raise TrainingError(f"batch size must be at least 1, got {batch_size}.")
    order = np.random.default_rng((seed, epoch)).permutation(num)
    if augment.balance:
        order = _balanced(_checked_labels(label_NK, num), seed, epoch)[order]
    is_mirrored = np.zeros(num, bool)
    if augment.mirror:
        is_mirrored = stream(seed, _MIRRORED, epoch).random(num) < 0.5
    starts = list(range(0, num, batch_size))
    if len(starts) > 1 and num - starts[-1] == 1:
        starts.pop()
    scales = stream(seed, _SCALE, epoch).uniform(*augment.scale, len(starts)).tolist()
    places, mirrored = order.tolist(), is_mirrored.tolist()
    return [
        [Draw(places[i], i, mirrored[i], scale) for i in range(start, stop)]
        for start, stop, scale in zip(starts, [*starts, num][1:], scales, strict=True)
    ]


def ordered_batches(num: int, batch_size: int, start: int = 0) -> list[list[Draw]]:
    """Return examples `start` … `num` − 1 once, in order and unchanged, cut into batches."""
    return [
        [Draw(place, place) for place in range(first, min(first + batch_size, num))]
        for first in range(start, num, batch_size)
    ]


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return random numbers of their own for each key, apart from ``default_rng(seed)``.

    A tuple given to ``default_rng`` is filled up with zeros, so that (seed, epoch) and
    (seed, epoch, 0) would be one stream.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _checked_labels(label_NK: NDArray[np.uint8] | None, num: int) -> NDArray[np.uint8]:
    shape = None if label_NK is None else label_NK.shape
    if label_NK is None or label_NK.ndim != 2 or len(label_NK) != num:
        raise TrainingError(f"balance needs labels of shape ({num}, num_classes), got {shape}.")
    return label_NK


def _balanced(label_NK: NDArray[np.uint8], seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the `num` places that a balanced epoch shows, not in random order yet."""
    place_P, class_P = np.nonzero(label_NK == 1)
    in_class_P = np.argsort(class_P, kind="stable")
    starts = np.flatnonzero(np.diff(class_P[in_class_P])) + 1
    members = np.split(place_P[in_class_P], starts) if len(place_P) else []
    unlabelled = np.setdiff1d(np.arange(len(label_NK)), place_P)
    num_dealt = len(label_NK) - len(unlabelled)
    first, stop = epoch * num_dealt, (epoch + 1) * num_dealt  # counted over all epochs
    chosen = [unlabelled]
    for k, places in enumerate(members):  # draw d is for class d % len(members)
        turns = [-((k - draw) // len(members)) for draw in (first, stop)]
        chosen.append(_turns(places, turns[0], turns[1], seed, k))
    return np.concatenate(chosen)


def _turns(
    places: NDArray[np.int64], first: int, stop: int, seed: int, k: int
) -> NDArray[np.int64]:
    """Return draws `first` to `stop` of an endless row of shuffles of `places`."""
    cycles = range(first // len(places), -(-stop // len(places)))
    shuffles = [stream(seed, _BALANCE, k, cycle).permutation(places) for cycle in cycles]
    skipped = first - cycles.start * len(places)
    return np.concatenate([places[:0], *shuffles])[skipped : skipped + stop - first]
