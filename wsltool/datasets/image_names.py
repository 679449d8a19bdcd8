"""Which image another tool means: it may leave out folders or the ending, or give a number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from wsltool.datasets.pictures import EXTENSIONS
from wsltool.errors import DatasetError

__all__ = ["ImageNames", "without_ending"]

_SEVERAL = -1
_DIGITS = re.compile(r"(\d{1,18})$")
_MOST_DIGITS = 18

Names = Callable[[str], str]


def without_ending(name: str) -> str:
    """Return a path without the ending of a picture, if it has one."""
    stem, dot, ending = name.rpartition(".")
    return stem if stem and dot + ending.lower() in EXTENSIONS else name


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


def _bare_name(name: str) -> str:
    return without_ending(_file_name(name))


_WRITTEN: tuple[Names, ...] = (str, without_ending, _file_name, _bare_name)


class ImageNames:
    """Finds images by the names that other tools give them.

    A name is looked up as it is, then without the ending of a picture, without folders, and
    without both; each time among the ids and paths of the images, first as they are, then
    reduced in the same ways. Numbers, and names of digits alone, are looked up last: among
    the numbers that ids end with (42 is ``000000000042`` and ``COCO_val2014_000000000042``).

    Parameters
    ----------
    image_id, image_path : sequences of str
        Of the images, in their order.
    origin : str
        What messages call the images.
    """

    def __init__(self, image_id: Sequence[str], image_path: Sequence[str], *, origin: str) -> None:
        self._id, self._path, self._origin = image_id, image_path, origin
        self._tables: dict[Names | None, dict[str | int, int]] = {}

    def __len__(self) -> int:
        return len(self._id)

    def row(self, name: str | int) -> int | None:
        """Return the row of an image, None where no image has such a name.

        Raises
        ------
        DatasetError
            The name fits several images.
        """
        for key, table in self._attempts(name):
            row = self._table(table).get(key)
            if row is not None:
                return self._told(name, key, table) if row == _SEVERAL else row
        return None

    def _attempts(self, name: str | int) -> Iterator[tuple[str | int, Names | None]]:
        """Yield what to look up, and in which table (None: that of the numbers)."""
        text = str(name)
        seen = set()
        for reduced in _WRITTEN:
            key = reduced(text)
            if key and key not in seen:
                seen.add(key)
                yield from ((key, table) for table in _WRITTEN)
        if text.isdecimal() and len(text) <= _MOST_DIGITS:
            yield int(text), None

    def _table(self, kind: Names | None) -> dict[str | int, int]:
        if kind not in self._tables:
            found: dict[str | int, int] = {}
            for row in range(len(self._id)):
                for key in set(self._keys(row, kind)):
                    found[key] = _SEVERAL if key in found else row
            self._tables[kind] = found
        return self._tables[kind]

    def _keys(self, row: int, kind: Names | None) -> Iterator[str | int]:
        """Yield under what an image stands in a table."""
        if kind is None:
            digits = _DIGITS.search(_bare_name(self._id[row]))
            if digits:
                yield int(digits[1])
        elif kind is str:
            yield self._id[row]
        else:
            yield kind(self._id[row])
            yield kind(self._path[row])

    def _told(self, name: str | int, key: str | int, kind: Names | None) -> int:
        fitting = [
            self._id[row] for row in range(len(self._id)) if key in set(self._keys(row, kind))
        ]
        raise DatasetError(
            f'image "{name}" fits {len(fitting)} images of {self._origin} ("{fitting[0]}", '
            f'"{fitting[1]}"). Give them the ids of the images store.'
        )
