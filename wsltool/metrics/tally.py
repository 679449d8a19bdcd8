"""What every protocol counts: tables whose entries belong to images, and sums.

A protocol counts a block of images into a `Tally`; the tallies of all blocks are joined, in any
order and any division, and ratios are made once, of the joined one. Since an entry knows its
image, a joined tally can also be told to take each image so many times: that is a sample of
the bootstrap, without counting anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from wsltool.errors import ProtocolError

__all__ = ["Gathering", "Tally", "joined_by_name"]

_T = TypeVar("_T")

Column = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of some images, with K classes.

    Attributes
    ----------
    num_classes : int
        The number K of classes of the truth.
    tables : mapping of str to mapping of str to array
        Columns of equal length by the name of their table; a column may have further axes.
        Every table has the column ``row`` (int64), the row of the entry's image among all
        that are scored (`Truth.row_N`). The table ``image`` has one entry for each image,
        excluded ones included. All entries of an image stand in one tally, in a fixed order.
    sums : mapping of str to int64 array
        What is added up over all images and cannot be resampled; a part that lacks one has
        nothing to add.
    times_N : int64 array or None
        How often each image counts, in the order of the table ``image`` of a joined tally;
        None for once.
    """

    num_classes: int
    tables: Mapping[str, Mapping[str, Column]]
    sums: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    times_N: npt.NDArray[np.int64] | None = None
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def __add__(self, other: Tally) -> Tally:
        return Tally.joined([self, other])

    @classmethod
    def joined(cls, parts: Iterable[Tally]) -> Tally:
        """Return the tally of all images of some tallies; the same whatever their order.

        Raises
        ------
        ProtocolError
            If there is no part, an image is counted twice, or the classes are not the same.
        """
        gathering = Gathering()
        for part in parts:
            gathering.add(part)
        return gathering.joined()

    def drawn(self, times_N: npt.NDArray[Any]) -> Tally:
        """Return the same tally, each image taken so many times.

        Parameters
        ----------
        times_N : array of integers
            At least 0, in the order of the table ``image`` of a joined tally.

        Raises
        ------
        ProtocolError
            If there is not one number for each image, or the tally is not a joined one.
        """
        if len(times_N) != len(self.row_N) or (np.diff(self.row_N) <= 0).any():
            raise ProtocolError(
                f"{len(times_N)} numbers of times are given for {len(self.row_N)} images; expected "
                "one each, and rows that rise. Draw from a joined tally."
            )
        return replace(self, times_N=np.asarray(times_N, np.int64))

    @property
    def row_N(self) -> npt.NDArray[np.int64]:
        """The rows of all images, in rising order where it is joined."""
        return self.tables["image"]["row"]

    def column(self, table: str, name: str) -> Column:
        """Return a column."""
        return self.tables[table][name]

    def weight(self, table: str) -> npt.NDArray[np.int64]:
        """Return how often each entry of a table counts, int64 (E,)."""
        row_E = self.tables[table]["row"]
        if self.times_N is None:
            return np.ones(len(row_E), np.int64)
        image_E = self.once(f"image of {table}", lambda: np.searchsorted(self.row_N, row_E))
        return self.times_N[image_E]

    def num(self, table: str, where: npt.NDArray[np.bool_] | None = None) -> int:
        """Return how many entries there are, of those marked."""
        weight_E = self.weight(table)
        return int(weight_E.sum() if where is None else weight_E[where].sum())

    def num_by(
        self,
        table: str,
        key: str = "class",
        where: npt.NDArray[np.bool_] | None = None,
        num_keys: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """Return how many entries have each key (of the column `key`), int64 (K,)."""
        key_E, weight_E = self.tables[table][key], self.weight(table)
        if where is not None:
            key_E, weight_E = key_E[where], weight_E[where]
        num_keys = self.num_classes if num_keys is None else num_keys
        # Whole numbers below 2**53 are exact in float64.
        return np.bincount(key_E, weight_E, minlength=num_keys).astype(np.int64)

    def total(self, table: str, name: str) -> npt.NDArray[np.int64]:
        """Return the sum of a column of whole numbers over all entries, int64 (its other axes)."""
        column, weight_E = self.tables[table][name], self.weight(table)
        return np.tensordot(weight_E, column.astype(np.int64), axes=(0, 0))

    def once(self, name: str, make: Callable[[], _T]) -> _T:
        """Return what `make` makes, made only once for this tally and all drawn from it."""
        if name not in self._kept:
            self._kept[name] = make()
        found: _T = self._kept[name]
        return found

    def as_arrays(self) -> dict[str, Column]:
        """Return everything as arrays by name, for `from_arrays`."""
        arrays: dict[str, Column] = {"num_classes": np.array([self.num_classes])}
        for table, columns in self.tables.items():
            arrays |= {f"tables/{table}/{name}": column for name, column in columns.items()}
        return arrays | {f"sums/{name}": total for name, total in self.sums.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Column]) -> Tally:
        """Return the tally that `as_arrays` took apart."""
        tables: dict[str, dict[str, Column]] = {}
        sums: dict[str, npt.NDArray[np.int64]] = {}
        for path, array in arrays.items():
            kind, _, rest = path.partition("/")
            if kind == "tables":
                table, _, name = rest.partition("/")
                tables.setdefault(table, {})[name] = array
            elif kind == "sums":
                sums[rest] = array
        return cls(int(arrays["num_classes"][0]), tables, sums)


class Gathering:
    """Tallies on their way to become one: sums are added up at once, tables are kept.

    So the sums of many blocks take the memory of one.
    """

    def __init__(self) -> None:
        self._num_classes: int | None = None
        self._tables: dict[str, list[Mapping[str, Column]]] = {}
        self._sums: dict[str, npt.NDArray[np.int64]] = {}

    def add(self, part: Tally) -> None:
        """Add the tally of further images.

        Raises
        ------
        ProtocolError
            If it has another number of classes.
        """
        if self._num_classes not in (None, part.num_classes):
            raise ProtocolError(
                f"a block of images has {part.num_classes} classes, those before it "
                f"{self._num_classes}; expected the same."
            )
        self._num_classes = part.num_classes
        for name, table in part.tables.items():
            self._tables.setdefault(name, []).append(table)
        for name, total in part.sums.items():
            if name in self._sums:
                self._sums[name] += total
            else:
                self._sums[name] = np.array(total, np.int64)

    def joined(self) -> Tally:
        """Return the tally of all images; see `Tally.joined`."""
        if self._num_classes is None:
            raise ProtocolError("0 blocks of images were counted; expected at least one.")
        tables = {name: _joined_table(parts) for name, parts in self._tables.items()}
        row_N = tables["image"]["row"]
        twice_N = np.diff(row_N) == 0
        if twice_N.any():
            row = int(row_N[int(twice_N.argmax())])
            raise ProtocolError(f"row {row} was counted twice; expected every image once.")
        sums = {name: self._sums[name] for name in sorted(self._sums)}
        return Tally(self._num_classes, tables, sums)


def joined_by_name(named: Iterable[tuple[str, Tally]]) -> dict[str, Tally]:
    """Return the joined tally of each name; names in the order of their first tally."""
    found: dict[str, Gathering] = {}
    for name, tally in named:
        found.setdefault(name, Gathering()).add(tally)
    return {name: gathering.joined() for name, gathering in found.items()}


def _joined_table(parts: list[Mapping[str, Column]]) -> dict[str, Column]:
    """Return the entries of all parts in the order of their images."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order_E = np.argsort(columns["row"], kind="stable")
    if (np.diff(order_E) == 1).all():
        return columns
    return {name: column[order_E] for name, column in columns.items()}
