"""Store schema, version 1: which arrays each kind of store holds.

The page for people is ``docs/stores/v1.md``; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FORMAT", "KINDS", "RAGGED", "ArraySpec", "StringArray", "row_axis", "string_array"]

FORMAT = 1

StringArray = np.ndarray[Any, Any]


def string_array(values: Any) -> StringArray:
    """Return `values` as a one-dimensional array of variable-length UTF-8 strings."""
    made: StringArray = np.array(values, dtype=np.dtypes.StringDType()).reshape(-1)
    return made


@dataclass(frozen=True)
class ArraySpec:
    """What the schema says of one array.

    Attributes
    ----------
    dims : tuple of str
        Names of the axes. The first one says how the array is cut into rows: ``image``
        (one row an image), ``image_edge`` (offsets of ragged rows), a ragged axis such as
        ``box``, or anything else (a fixed array, written whole).
    dtypes : tuple of str
        What may stand there; the first is what is written unless a stage asks otherwise.
    required : bool
        Whether every store of the kind that wsltool writes holds it.
    fill : int or float
        What pads the trailing axes where blocks differ in size (fewer slots, smaller grid).
    raw : bool
        Already compressed bytes: stored uncompressed, with crc32c.
    into : str
        The ragged axis whose rows the values name, in rising order; a part counts them from its
        own first row. Empty where values are no rows.
    """

    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    required: bool = True
    fill: float = 0
    raw: bool = False
    into: str = ""


# Every ragged axis, the array of offsets that cuts it into images, by kind.
RAGGED: dict[str, dict[str, str]] = {
    "images": {"box": "box_start", "mask": "mask_start", "n": "byte_start"},
    "maps": {"candidate": "candidate_start"},
    "boxes": {"box": "box_start"},
    "masks": {"n": "mask_start"},
    "features": {"cell": "cell_start"},
    "clusters": {},
}


def row_axis(kind: str) -> str:
    """Return the axis that the rows of a kind stand on: ``image``, of clusters ``class``."""
    return "class" if kind == "clusters" else "image"


def _spec(dims: str, dtypes: str, *, required: bool = True, **more: Any) -> ArraySpec:
    return ArraySpec(tuple(dims.split()), tuple(dtypes.split()), required, **more)


_IMAGE_ARRAYS = {
    "image_id": _spec("image", "string"),
    "image_size": _spec("image wh", "int32"),
    "class_name": _spec("class", "string"),
    "image_status": _spec("image", "uint8", required=False),
    "image_note": _spec("image", "string", required=False),
}

_OPTIONAL_BOX = {
    name: _spec("box", "uint8", required=False)
    for name in ("box_difficult", "box_truncated", "box_crowd")
}

KINDS: dict[str, dict[str, ArraySpec]] = {
    "images": {
        **_IMAGE_ARRAYS,
        "image_path": _spec("image", "string"),
        "image_num_bytes": _spec("image", "int64"),
        "label": _spec("image class", "uint8"),
        "class_id": _spec("class", "string"),
        "box_start": _spec("image_edge", "int64", required=False),
        "box": _spec("box xyxy", "float64 float32", required=False),
        "box_class": _spec("box", "int32", required=False),
        **_OPTIONAL_BOX,
        "box_area": _spec("box", "float64", required=False),
        "box_rle": _spec("box", "string", required=False),
        "mask_start": _spec("image_edge", "int64", required=False),
        "mask_path": _spec("mask", "string", required=False),
        "mask_class": _spec("mask", "int32", required=False),
        "image_excluded": _spec("image", "uint8", required=False),
        "byte_start": _spec("image_edge", "int64", required=False),
        "byte": _spec("n", "uint8", required=False, raw=True),
    },
    "maps": {
        **_IMAGE_ARRAYS,
        "map": _spec("image slot row col", "float32 float16 float64"),
        "map_class": _spec("image slot", "int32", fill=-1),
        "map_score": _spec("image slot", "float32", fill=-np.inf),
        "map_extent": _spec("image xyxy", "float32"),
        "map_grid": _spec("image rowcol", "int32", required=False),
        "class_score": _spec("image class", "float32"),
        "suppressed": _spec("image slot row col", "uint8", required=False),
        "candidate_start": _spec("image_edge", "int64", required=False),
        "candidate": _spec("candidate xyxy", "float64", required=False),
        "candidate_slot": _spec("candidate", "int32", required=False),
        "candidate_level": _spec("candidate", "int16", required=False),
        "candidate_score": _spec("candidate", "float32", required=False),
    },
    "boxes": {
        **_IMAGE_ARRAYS,
        "map_class": _spec("image slot", "int32", fill=-1),
        "map_score": _spec("image slot", "float32", fill=-np.inf),
        "box_start": _spec("image_edge", "int64"),
        "box": _spec("box xyxy", "float64 float32"),
        "box_class": _spec("box", "int32"),
        "box_score": _spec("box", "float32"),
        "box_slot": _spec("box", "int32"),
    },
    "masks": {
        **_IMAGE_ARRAYS,
        "mask_start": _spec("image_edge", "int64"),
        "mask_byte": _spec("n", "uint8", raw=True),
    },
    "features": {
        **_IMAGE_ARRAYS,
        "map_extent": _spec("image xyxy", "float32"),
        "cell_start": _spec("image_edge", "int64"),
        "cell": _spec("cell rowcol", "int16"),
        "feature": _spec("cell channel", "float16 float32"),
        "pattern_cell": _spec("pattern", "int64", required=False, into="cell"),
        "pattern_class": _spec("pattern", "int32", required=False),
    },
    "clusters": {
        "class_name": _spec("class", "string"),
        "class_note": _spec("class", "string"),
        "num_patterns": _spec("class", "int64"),
        "num_zero": _spec("class", "int64"),
        "eigenvalue": _spec("class m", "float64", fill=np.nan),
        "centroid": _spec("cluster channel", "float32"),
        "cluster_class": _spec("cluster", "int32"),
        "cluster_size": _spec("cluster", "int64"),
    },
}
