"""Which part of its input the cells of a sliding-window network cover."""

from __future__ import annotations

from dataclasses import dataclass

from wsltool.errors import ModelError

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """The window that a network slides over its input, one cell of its maps a position.

    A network of fully connected layers turned into convolutions (Oquab et al. 2015, §3) sees
    nothing beyond its input, so its outer cells are centred half a window from the edge.

    Attributes
    ----------
    size_px
        Rows and columns of the window, in pixels of the input.
    stride_px
        From one position to the next.

    Raises
    ------
    ModelError
        A number is not whole and positive.
    """

    size_px: int
    stride_px: int

    def __post_init__(self) -> None:
        for name, value in (("size_px", self.size_px), ("stride_px", self.stride_px)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"window: {name} must be a whole number above 0, got {value!r}.")

    def covered(self, num_cells: int, input_px: int) -> tuple[float, float]:
        """Return the part of one axis of the input that the cells cover.

        Cells are `stride_px` wide, the first is centred on ``size_px / 2``.

        Parameters
        ----------
        num_cells
            Of the maps, along this axis.
        input_px
            Of the input, along this axis.

        Returns
        -------
        tuple of float
            Start and end as fractions of the input. Below 0 or above 1 where the stride is
            larger than the window.
        """
        start_px = (self.size_px - self.stride_px) / 2
        return start_px / input_px, (start_px + num_cells * self.stride_px) / input_px
