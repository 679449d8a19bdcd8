"""The picture of an annotated image: its file, or what is told of it where there is none."""

from __future__ import annotations

from pathlib import Path

from wsltool.datasets.pictures import MAX_NUM_PIXELS, read_size
from wsltool.errors import BadImageError

__all__ = ["size_and_bytes"]


def size_and_bytes(
    picture: Path | None, told_wh: tuple[int, int] | None, told_by: str
) -> tuple[tuple[int, int], int]:
    """Return width and height in pixels, and the file's size in bytes (0 without a file).

    Parameters
    ----------
    picture
        The file; None where a data set is read without its pictures.
    told_wh
        The size that an annotation tells, None where it tells none.
    told_by
        What messages call that annotation.

    Raises
    ------
    BadImageError
        The file is no picture, or of another size than the annotation tells; without a
        file: no size is told, or one that no picture has.
    """
    if picture is None:
        if told_wh is None:
            raise BadImageError(f"{told_by}: no size is told, and there are no pictures.")
        width, height = told_wh
        if min(told_wh) < 1 or width * height > MAX_NUM_PIXELS:
            raise BadImageError(
                f"{told_by}: size {width}x{height}; expected at least 1x1 and at most "
                f"{MAX_NUM_PIXELS} pixels."
            )
        return told_wh, 0
    size_wh = read_size(picture)
    if told_wh not in (None, size_wh):
        raise BadImageError(
            f"{told_by}: made for {told_wh[0]}x{told_wh[1]} pixels, but the picture has "
            f"{size_wh[0]}x{size_wh[1]}."
        )
    return size_wh, picture.stat().st_size
