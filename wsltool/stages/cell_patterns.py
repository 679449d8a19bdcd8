"""The patterns of every cell of some images: out of a features store, or computed now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wsltool.errors import LineageError, ProtocolError, StoreCorruptError
from wsltool.stages.model_behind import model_record
from wsltool.stages.options import TorchSettings
from wsltool.stages.pictures_behind import PicturesBehind
from wsltool.stages.report import Reporter
from wsltool.stores.lineage import same_fingerprint
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.nets.layers import Layer
    from wsltool.nets.models import Model

__all__ = [
    "CellPatterns",
    "ComputedPatterns",
    "PatternSource",
    "StoredPatterns",
    "check_features",
    "matched_rows",
]

Array = np.ndarray[Any, Any]

_WINDOW_BYTES = 16 << 20
_CURE = "Make it with extract-features --cells all of these maps, or of their images."


class CellPatterns(NamedTuple):
    """The patterns of one image.

    Attributes
    ----------
    feature_HWC : float ndarray of shape (H, W, C)
        Raw activations of the whole grid.
    extent_xyxy : float32 ndarray of shape (4,)
        What the grid covers, in pixels of the image.
    error : str or None
        Why there are none.
    """

    feature_HWC: Array
    extent_xyxy: Array
    error: str | None


PatternSource = Callable[[Sequence[Sequence[int]]], Generator[CellPatterns]]
"""Given the rows of blocks that are asked for, yields their patterns in that order."""


def matched_rows(maps: Store, features: Store, rows: Sequence[int]) -> dict[int, int]:
    """Return the row of each of some images of `maps` in a features store, joined by id.

    Raises
    ------
    LineageError
        An image is not there, or has another size.
    """
    names, sizes = maps.whole("image_id").tolist(), maps.whole("image_size")
    row_of = {name: row for row, name in enumerate(features.whole("image_id").tolist())}
    their_sizes = features.whole("image_size")
    found = {}
    for row in rows:
        place = row_of.get(names[row])
        if place is None:
            raise LineageError(
                f'{features.path.name}: has no image "{names[row]}", row {row} of '
                f"{maps.path.name}, which has a map of a class with a distractor. {_CURE}"
            )
        if (sizes[row] != their_sizes[place]).any():
            (wide, high), (width, height) = their_sizes[place].tolist(), sizes[row].tolist()
            raise LineageError(
                f'{features.path.name}: row {place} "{names[row]}" is {wide}x{high} px, '
                f"{width}x{height} px in {maps.path.name}; expected the same pictures. {_CURE}"
            )
        found[row] = place
    return found


def check_features(features: Store, clusters: Store, report: Reporter) -> None:
    """Refuse a features store that cannot judge every cell by these clusters.

    Raises
    ------
    ProtocolError
        It holds firing cells only, or features of another network, layer or width.
    """
    name, cells = features.path.name, features.attributes.get("cells")
    if cells != "all":
        raise ProtocolError(
            f'{name}: holds the cells "{cells}", expected "all". Every cell is judged: once a peak '
            "is suppressed the threshold falls, and cells that no cluster judged would become "
            "foreground. Make it with extract-features --cells all, or leave --features out."
        )
    ours, theirs = model_record(features), model_record(clusters)
    if ours and theirs and not same_fingerprint(ours, theirs):
        raise ProtocolError(
            f"{name}: features of the model {_named(ours)}, but {clusters.path.name} was made with "
            f"{_named(theirs)}; patterns of another network mean nothing to these clusters. "
            "Extract features with the model of the clusters."
        )
    wide, width = features.shape("feature")[1], clusters.shape("centroid")[1]
    told, known = (store.attributes.get("layer") for store in (features, clusters))
    if told != known or wide != width:
        raise ProtocolError(
            f'{name}: features of the layer "{told}" with {wide} channels, {clusters.path.name} '
            f'has clusters of "{known}" with {width}. Extract features of that layer.'
        )
    for option in ("input_size", "fit"):
        told, known = (store.attributes.get(option) for store in (features, clusters))
        if told != known:
            report.warn(f"{name}: {option} is {told}, that of {clusters.path.name} {known}.")


def _named(record: dict[str, Any]) -> str:
    digest = str(record.get("digest", "?")).removeprefix("sha256:")
    return f'"{record.get("path", "?")}" ({digest[:12]})'


class StoredPatterns:
    """Reads the patterns of images from a features store that holds every cell.

    Parameters
    ----------
    features : Store
        See `check_features`.
    row_of : dict
        The row in it of every image that will be asked for, see `matched_rows`.
    """

    def __init__(self, features: Store, row_of: dict[int, int]) -> None:
        self._features, self._row_of = features, row_of
        num_rows, num_cols = (int(side) for side in features.attributes["grid"])
        self._grid = num_rows, num_cols
        item = np.dtype(features.dtype("feature")).itemsize * features.shape("feature")[1]
        self._num_images = max(1, _WINDOW_BYTES // max(1, num_rows * num_cols * item))

    def __call__(self, blocks: Sequence[Sequence[int]]) -> Generator[CellPatterns]:
        """Yield the patterns of the rows of all blocks, in that order.

        Raises
        ------
        StoreCorruptError
            An image lacks some of its cells.
        """
        row_M = [self._row_of[row] for rows in blocks for row in rows]
        for at in range(0, len(row_M), self._num_images):
            yield from self._window(np.array(row_M[at : at + self._num_images]))

    def _window(self, row_M: Array) -> Generator[CellPatterns]:
        names = [n for n in ("map_extent", "image_note") if n in self._features]
        found = self._features.gather(row_M, names, ["cell"])
        edge = np.concatenate([[0], np.cumsum(found["cell_start"])])
        for m, row in enumerate(row_M.tolist()):
            own = slice(edge[m], edge[m + 1])
            error = None
            feature_HWC = np.zeros((*self._grid, found["feature"].shape[1]), np.float32)
            if own.start == own.stop:
                note = str(found["image_note"][m]) if "image_note" in found else ""
                error = (
                    f"it has no cells in {self._features.path.name}: {note or 'left out there.'}"
                )
            else:
                feature_HWC = self._placed(found["cell"][own], found["feature"][own], row)
            yield CellPatterns(feature_HWC, found["map_extent"][m], error)

    def _placed(self, cell_P2: Array, feature_PC: Array, row: int) -> Array:
        """Return the features of an image on its grid."""
        num_rows, num_cols = self._grid
        place_P = cell_P2[:, 0].astype(np.int64) * num_cols + cell_P2[:, 1]
        order_P = np.argsort(place_P, kind="stable")
        if not np.array_equal(place_P[order_P], np.arange(num_rows * num_cols)):
            name = self._features.path.name
            raise StoreCorruptError(
                f"{name} row {row}: has {len(cell_P2)} cells, expected each of the "
                f"{num_rows}x{num_cols} once. Run: wsltool verify {name}"
            )
        placed_HWC: Array = feature_PC[order_P].reshape(num_rows, num_cols, -1)
        return placed_HWC


@dataclass(frozen=True)
class ComputedPatterns:
    """Computes the patterns of images, in one pass of the model over their pictures.

    Attributes
    ----------
    model : Model
    layer : Layer
        Whose activations are the patterns.
    pictures : PicturesBehind
        Of the rows of the maps.
    settings : TorchSettings
    """

    model: Model
    layer: Layer
    pictures: PicturesBehind
    settings: TorchSettings

    def __call__(self, blocks: Sequence[Sequence[int]]) -> Generator[CellPatterns]:
        """Yield the patterns of the rows of all blocks, in that order; no batch crosses a block.

        Close the generator, or use it up, to end the processes that read pictures.
        """
        from wsltool.nets.features import run_features

        size = self.settings.batch_size
        found = run_features(
            self.model,
            self.pictures,
            [rows[at : at + size] for rows in blocks for at in range(0, len(rows), size)],
            self.layer,
            device=self.settings.device,
            precision=self.settings.precision,
            workers=self.settings.workers,
        )
        with contextlib.closing(found):
            for batch in found:
                for n, error in enumerate(batch.error):
                    feature_HWC = batch.feature_NCHW[n].transpose(1, 2, 0)
                    yield CellPatterns(feature_HWC, batch.extent_N4[n], error)
