"""What a training is given: labelled pictures, a place, earlier networks, listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsltool.localize.cooccurrence import label_pair_count
from wsltool.nets.checkpoint import Record
from wsltool.nets.distributed import World
from wsltool.nets.examples import LoadBoxes
from wsltool.nets.models import Model
from wsltool.nets.picture_inputs import LoadPicture
from wsltool.nets.validation import Measure

__all__ = ["Feedback", "Labelled", "Place", "Validated", "Watcher"]


@dataclass(frozen=True)
class Labelled:
    """Pictures with image-level labels.

    Attributes
    ----------
    load_picture
        Takes a row, returns its picture.
    label_NK
        (num_rows, num_classes) uint8: 0 absent, 1 present, 255 undecided.
    rows
        The row of each label; None for 0 … num_rows − 1. Good pictures only.
    class_name, class_id
        Of each class, kept with the model.
    boxes
        True boxes of a row in pixels, for masked pooling; None without.
    key
        Tells these pictures from others where features are shared in a folder.
    """

    load_picture: LoadPicture
    label_NK: NDArray[np.uint8]
    rows: Sequence[int] | None = None
    class_name: Sequence[str] | None = None
    class_id: Sequence[str] | None = None
    boxes: LoadBoxes | None = None
    key: str = ""

    @property
    def places(self) -> list[int]:
        """The row of each label."""
        return list(range(len(self.label_NK)) if self.rows is None else self.rows)

    @property
    def names(self) -> list[str]:
        """Class names, numbers where there are none."""
        return list(self.class_name or map(str, range(self.label_NK.shape[1])))

    @cached_property
    def label_pair_count_KK(self) -> NDArray[np.int64]:
        """In how many of the pictures two classes are both present; see `label_pair_count`.

        Of the pictures as they are: the repetitions of balancing, epochs, processes and whether
        the training was interrupted do not matter.
        """
        return label_pair_count(self.label_NK)


@dataclass(frozen=True)
class Place:
    """Where a training runs and what it keeps.

    Attributes
    ----------
    folder
        Of checkpoint and log.
    cache
        Folder where what frozen parts give is kept and shared; None for `folder`.
    device, workers, world
        Where it is computed; processes that read pictures; processes that train.
    checkpoint_s
        Seconds between checkpoints.
    """

    folder: Path
    cache: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    world: World = field(default_factory=World)
    checkpoint_s: float = 600.0


@dataclass(frozen=True)
class Feedback:
    """Earlier networks of two-phase learning (Kim et al. 2017).

    Attributes
    ----------
    firsts
        Earlier models.
    thresholds
        Of each; missing ones are .6 for the first and .4 for the others.
    layer
        Module whose output is suppressed; None for the architecture's own place.
    """

    firsts: Sequence[Model]
    thresholds: Sequence[float] = ()
    layer: str | None = None


@dataclass(frozen=True)
class Validated:
    """Images on which a training is measured on the way; see `wsltool.nets.validation`."""

    data: Labelled
    measure: Measure
    every: int | None = None


@dataclass(frozen=True)
class Watcher:
    """Who hears of a training.

    Attributes
    ----------
    features
        Called with the number of pictures whose features were just computed.
    step
        Called with the iterations that are done, out of how many.
    record
        Called with each line of the log.
    keep_at, keep
        `keep` is called with the model as it is after each of these iterations.
    """

    features: Callable[[int], None] | None = None
    step: Callable[[int, int], None] = lambda _done, _total: None
    record: Callable[[Record], None] = lambda _record: None
    keep_at: Sequence[int] = ()
    keep: Callable[[int, Model], None] = lambda _iteration, _model: None
