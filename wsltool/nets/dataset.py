"""A store as a data set of torch."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray
from torch.utils.data import Dataset

__all__ = ["RowDataset", "RowSource"]


class RowSource(Protocol):
    """What can be read row by row; it must bear pickling to be used with workers."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def row(self, row: int) -> dict[str, NDArray[Any]]:
        """Return all arrays of one row by name."""
        ...


class RowDataset(Dataset[dict[str, NDArray[Any]]]):
    """Rows of any `RowSource`, for ``torch.utils.data.DataLoader``.

    Arrays stay numpy arrays, as they are stored. Rows count from the end where negative.

    Raises
    ------
    IndexError
        There is no such row.
    """

    def __init__(self, source: RowSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict[str, NDArray[Any]]:
        num_rows = len(self)
        if not -num_rows <= row < num_rows:
            raise IndexError(f"row {row} is not among the {num_rows} rows.")
        return self.source.row(row % num_rows)
