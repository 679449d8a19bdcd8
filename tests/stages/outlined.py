"""Images whose boxes have masks, as COCO has them, for the tests of this room."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from .making import arrays, write_store

__all__ = ["encoded", "with_outlines"]


def encoded(mask_HW):
    """Return COCO's run-length code of a mask."""
    return coco_mask.encode(np.asfortranarray(mask_HW, np.uint8))["counts"].decode()


def with_outlines(images, masks, crowd=None):
    """Write another images store beside `images`: a mask (or a code) for each of its boxes.

    `crowd` says of each box whether it is one; its box is then difficult, too.
    """
    values = arrays(images)
    values["box_start"] = np.diff(values["box_start"])
    values["box_rle"] = [one if isinstance(one, str) else encoded(one) for one in masks]
    if crowd is not None:
        values["box_crowd"] = np.array(crowd, np.uint8)
        values["box_difficult"] = np.array(crowd, np.uint8)
    return write_store(images.with_name("outlined.zarr"), "images", values, root=".")
