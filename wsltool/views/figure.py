"""How every diagram is made: the look, and bytes that depend on the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wsltool.errors import ExtraMissingError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "INK", "LINE", "SOFT", "bare", "draw_figure"]

COLOURS: Final = ("#0b7a75", "#b3401f", "#4456b8", "#8a6d00", "#7a2d8c", "#626a76")
INK, SOFT, LINE = "#15181e", "#5c6470", "#dcdfe5"
_WIDTH_IN, _DPI = 8.0, 120


def draw_figure(
    path: Path,
    title: str,
    heights_in: Sequence[float],
    draw: Callable[[Sequence[Axes]], None],
    *,
    shared_x: bool = False,
) -> None:
    """Draw panels below each other into a picture.

    Nobody's matplotlib settings have a say; the same numbers give the same bytes (with the
    same matplotlib).

    Parameters
    ----------
    path : Path
        Ends in ``.png`` or ``.svg``; replaced where it exists.
    title : str
        Above the picture; mathematical text is not interpreted.
    heights_in : sequence of float
        Of the panels, in inches.
    draw : callable
        Gets the axes of all panels.
    shared_x : bool
        Whether all panels have one x axis.

    Raises
    ------
    UsageError
        The path has another suffix.
    ExtraMissingError
        matplotlib is not installed.
    """
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"{path}: a curve is a .png or a .svg.")
    try:
        import matplotlib
    except ImportError as error:
        raise ExtraMissingError(
            f"{path}: curves need matplotlib. Install it: pip install 'wsltool[plots]'"
        ) from error
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style(matplotlib.rcParamsDefault)):
        size_in = (_WIDTH_IN, sum(heights_in) + 0.9)
        figure = Figure(figsize=size_in, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            len(heights_in), sharex=shared_x, height_ratios=list(heights_in), squeeze=False
        )
        draw(list(axes[:, 0]))
        # A text that is wrapped is measured as mathematics even where it is not drawn as such.
        plain = title.replace("$", r"\$")
        figure.suptitle(plain, fontsize=12, fontweight="bold", wrap=True)
        about: dict[str, Any] = {"Software": None} if path.suffix == ".png" else {"Date": None}
        figure.savefig(path, metadata=about)


def bare(axes: Axes) -> None:
    """Leave of the frame what is needed to read the values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _style(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return matplotlib's own defaults, so that nobody's settings change the bytes, and ours."""
    held = {name: value for name, value in defaults.items() if not name.startswith("backend")}
    ours = {
        "svg.hashsalt": "wsltool",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": SOFT,
        "axes.edgecolor": SOFT,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
    }
    return held | ours
