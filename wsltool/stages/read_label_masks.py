"""Label images of a ``masks`` store, and those of the truth, for ``voc-miou``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsltool.errors import BadImageError, StoreCorruptError
from wsltool.metrics.records import Truth
from wsltool.metrics.voc_miou import LabelMasks
from wsltool.stages.true_masks import indexed_picture, true_masks
from wsltool.stores.store import Store

if TYPE_CHECKING:
    from wsltool.stages.scored_records import Source

__all__ = ["predicted_mask", "read"]

Array = np.ndarray[Any, Any]


def read(source: Source, block: slice, _true: Truth) -> LabelMasks:
    """Return the label images of a block of the scored images.

    Raises
    ------
    BadImageError
        A true mask cannot be read, or there are more classes than 8 bits can tell.
    StoreCorruptError
        A predicted mask cannot be decoded.
    """
    masks = true_masks(source.truth)
    return LabelMasks(
        tuple(predicted_mask(source.store, int(row)) for row in source.join.row_N[block]),
        tuple(masks.label_image(int(row)) for row in source.join.truth_row_N[block]),
    )


def predicted_mask(store: Store, row: int) -> Array | None:
    """Return the label image of one row of a ``masks`` store, uint8 (H, W), None without one.

    Raises
    ------
    StoreCorruptError
        It is no indexed picture.
    """
    if row < 0:
        return None
    _, where = store.ragged("n", row, row + 1)
    if where.start == where.stop:
        return None
    data = store.rows("mask_byte", where.start, where.stop).tobytes()
    try:
        return indexed_picture(data, "mask")
    except BadImageError as error:
        name = store.rows("image_id", row, row + 1)[0]
        raise StoreCorruptError(
            f'{store.path.name} row {row} "{name}": {error} Make the masks again.'
        ) from error
