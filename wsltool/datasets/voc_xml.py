"""The XML of one annotated picture, as PASCAL VOC and ILSVRC write it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import defusedxml.ElementTree
import numpy as np
import numpy.typing as npt

from wsltool.datasets.classes import ClassList
from wsltool.datasets.decimals import less
from wsltool.datasets.records import outside
from wsltool.errors import BadImageError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["check_size", "parse_annotation", "read_boxes", "read_classes"]

_CORNERS = ("xmin", "ymin", "xmax", "ymax")

Flags = npt.NDArray[np.uint8]


def parse_annotation(annotation: Path, place: str) -> Element:
    """Parse an annotation without entities and external references.

    Raises
    ------
    BadImageError
        It cannot be read, is no safe XML, or its root is not ``<annotation>``.
    """
    try:
        data = annotation.read_bytes()
    except OSError as error:
        raise BadImageError(f"{place}: cannot be read, {error.strerror}.") from error
    try:
        tree: Element = defusedxml.ElementTree.fromstring(data)
    except (SyntaxError, ValueError, LookupError) as error:  # ValueError: refused by defusedxml
        raise BadImageError(f"{place}: no safe XML, {error}.") from error
    if tree.tag != "annotation":
        raise BadImageError(f"{place}: root is <{tree.tag[:20]}>, expected <annotation>.")
    return tree


def check_size(tree: Element, size_wh: tuple[int, int], place: str) -> None:
    """Refuse an annotation made for another size; none, or 0 0, says nothing.

    Raises
    ------
    BadImageError
        The sizes differ.
    """
    told = [tree.findtext(f"size/{side}", "0") for side in ("width", "height")]
    words = [" ".join(word.split()) for word in told]
    if words not in (["0", "0"], [str(size_wh[0]), str(size_wh[1])]):
        raise BadImageError(
            f"{place}: made for {words[0][:20]}x{words[1][:20]} pixels, but the picture has "
            f"{size_wh[0]}x{size_wh[1]}."
        )


def read_classes(
    tree: Element, classes: ClassList, place: str
) -> tuple[npt.NDArray[np.int32], Flags, Flags]:
    """Read the class of every object, int32 (B,), and whether it is difficult and truncated.

    Raises
    ------
    BadImageError
        No name or one that is no class; a flag that is neither 0 nor 1.
    """
    objects = tree.findall("object")
    class_B = np.zeros(len(objects), np.int32)
    flag_2B = np.zeros((2, len(objects)), np.uint8)
    for index, element in enumerate(objects):
        where = f"{place} object {index + 1}"
        try:
            class_B[index] = classes.index(_text(element, "name", where))
        except LookupError as error:
            raise BadImageError(f"{where}: class {error.args[0]}.") from error
        flag_2B[:, index] = [_flag(element, name, where) for name in ("difficult", "truncated")]
    return class_B, flag_2B[0], flag_2B[1]


def read_boxes(
    tree: Element, size_wh: tuple[int, int], place: str, *, first: int = 1, overhang_px: float = 0
) -> npt.NDArray[np.float64]:
    """Read the box of every object, float64 (B, 4), as half-open ``x0 y0 x1 y1``.

    Both corners lie inside a box; the pixel in the picture's corner has the number `first`.

    Raises
    ------
    BadImageError
        A box is missing, is not four finite numbers, ends before it begins, or leaves the
        picture by more than `overhang_px`.
    """
    boxes = []
    for number, element in enumerate(tree.findall("object"), 1):
        where = f"{place} object {number}"
        words, told = _corners(element, where)
        moves = (first, first, first - 1, first - 1)
        box_xyxy = tuple(less(word, by) for word, by in zip(words, moves, strict=True))
        if outside(box_xyxy, size_wh, overhang_px):
            raise BadImageError(f"{told} lies outside the {size_wh[0]}x{size_wh[1]} picture.")
        boxes.append(box_xyxy)
    return np.array(boxes, np.float64).reshape(-1, 4)


def _corners(element: Element, where: str) -> tuple[list[str], str]:
    """Return the corners as written, which are finite numbers, and what to call them."""
    bounds = element.find("bndbox")
    if bounds is None:
        raise BadImageError(f"{where}: no <bndbox>.")
    words = [_text(bounds, tag, where) for tag in _CORNERS]
    told = f"{where}: box {' '.join(word[:20] for word in words)}"
    try:
        corners = tuple(float(word) for word in words)
    except ValueError as error:
        raise BadImageError(f"{told} is not four numbers.") from error
    if not np.isfinite(corners).all():
        raise BadImageError(f"{told} is not finite.")
    if corners[2] < corners[0] or corners[3] < corners[1]:
        raise BadImageError(f"{told} ends before it begins.")
    return words, told


def _text(element: Element, tag: str, where: str) -> str:
    text = " ".join((element.findtext(tag) or "").split())
    if not text:
        raise BadImageError(f"{where}: no <{tag}>.")
    return text


def _flag(element: Element, tag: str, where: str) -> int:
    text = " ".join(element.findtext(tag, "0").split())
    if text not in ("0", "1"):
        raise BadImageError(f'{where}: <{tag}> is "{text[:20]}", expected 0 or 1.')
    return int(text)
