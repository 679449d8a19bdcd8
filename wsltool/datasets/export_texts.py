"""Detections and annotations as text: COCO's JSON, VOC's XML and results, CSV.

All numbers are written with digits that read back as the same doubles (see
`wsltool.datasets.decimals`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from wsltool.datasets.decimals import moved, whole_number, width_text
from wsltool.errors import DatasetError

__all__ = ["coco_bbox", "coco_image_id", "comp_line", "csv_line", "number", "voc_xml"]

_BLANKS = " \t\r\n\f\v"


def number(value: float) -> str:
    """Return the fewest digits that read back as `value`; whole ones without a point."""
    return moved(value, 0)


def coco_image_id(image_id: str) -> int | str:
    """Return COCO's id of an image: a number where the id is one (000000000042 is 42)."""
    number = whole_number(image_id)
    return image_id if number is None else number


def coco_bbox(box_xyxy: Sequence[float]) -> str:
    """Return ``[x, y, width, height]``; x + width is exactly the box's right edge."""
    x0, y0, x1, y1 = box_xyxy
    return f"[{number(x0)}, {number(y0)}, {width_text(x0, x1)}, {width_text(y0, y1)}]"


def comp_line(image_id: str, score: float, box_xyxy: Sequence[float] = ()) -> str:
    """Return a line of VOC's results: image, score and, for detections, the inclusive corners.

    Raises
    ------
    DatasetError
        The id holds a blank, where the devkit's reader would end it.
    """
    if any(sign in image_id for sign in _BLANKS) or not image_id:
        raise DatasetError(
            f'image id "{image_id}" holds a blank or nothing, which the devkit cannot read. Export '
            "the form coco or csv."
        )
    return " ".join([image_id, number(score), *_inclusive(box_xyxy)]) + "\n"


def _inclusive(box_xyxy: Sequence[float]) -> list[str]:
    """Return the corners counted from 1, both ends inside."""
    return [moved(value, (1, 1, 0, 0)[place]) for place, value in enumerate(box_xyxy)]


def csv_line(fields: Sequence[Any]) -> str:
    """Return a line of CSV, quoted where it must be."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()


def voc_xml(
    filename: str,
    size_wh: Sequence[int],
    objects: Sequence[tuple[str, dict[str, str], list[float]]],
) -> str:
    """Return an annotation as PASCAL VOC writes it.

    Parameters
    ----------
    filename : str
        Name of the picture.
    size_wh : two of int
        Width and height in pixels.
    objects : sequence of (name, flags, box)
        Class, further tags in order (``truncated``, ``difficult``, ``score``), and the half-open
        box.
    """
    lines = ["<annotation>", f"\t<filename>{_xml(filename)}</filename>", "\t<size>"]
    lines += [f"\t\t<width>{size_wh[0]}</width>", f"\t\t<height>{size_wh[1]}</height>"]
    lines += ["\t\t<depth>3</depth>", "\t</size>", "\t<segmented>0</segmented>"]
    for name, flags, box_xyxy in objects:
        lines += ["\t<object>", f"\t\t<name>{_xml(name)}</name>", "\t\t<pose>Unspecified</pose>"]
        lines += [f"\t\t<{tag}>{value}</{tag}>" for tag, value in flags.items()]
        corners = zip(("xmin", "ymin", "xmax", "ymax"), _inclusive(box_xyxy), strict=True)
        lines += ["\t\t<bndbox>", *(f"\t\t\t<{tag}>{value}</{tag}>" for tag, value in corners)]
        lines += ["\t\t</bndbox>", "\t</object>"]
    return "\n".join([*lines, "</annotation>", ""])


def _xml(text: str) -> str:
    odd = next((sign for sign in text if ord(sign) < 32 or sign in "\ufffe\uffff"), None)
    if odd is not None:
        raise DatasetError(f"{text!r}: the character {odd!r} cannot stand in XML.")
    return escape(text)
