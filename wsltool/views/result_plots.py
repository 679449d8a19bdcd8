"""Pictures of results: curves, and a bar for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wsltool.views.figure import COLOURS, INK, SOFT, bare, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

__all__ = ["result_plot"]

_CURVE_IN, _BARS_IN = 3.0, 2.8
_MOST_NAMED, _MOST_BARS = 40, 4
Entry = Mapping[str, Any]


class _Panel(NamedTuple):
    height_in: float
    draw: Callable[[Axes], None]


class _Bars(NamedTuple):
    """One value a class, by name; None where a class has none."""

    label: str
    unit: str
    value: Mapping[str, float | None]


def result_plot(results: Sequence[Entry], path: Path) -> None:
    """Draw what `wsltool.stages.score.score` found.

    For each result its curve, if it has one: accuracy against the threshold with the best one
    marked, precision against recall, and the curve of a fitted threshold. Then bars, one a
    class (of more than 40 classes, how many have which value). Results of one protocol share a
    panel; so do a result and what it was compared with, and exactly two results (Oquab et al.
    2015, figure 5).

    Parameters
    ----------
    results : sequence of mappings
        Entries of the result, at least one.
    path : Path
        Ends in ``.png`` or ``.svg``; replaced where it exists.

    Raises
    ------
    UsageError
        The path has another suffix.
    ExtraMissingError
        matplotlib is not installed.
    """
    alike: dict[str, list[Entry]] = {}
    for entry in results:
        alike.setdefault(str(entry["protocol"]), []).append(entry)
    panels = [panel for entries in alike.values() for panel in _curves(entries)]
    panels += _bar_panels(results)
    if not panels:
        panels = [_values(results)]
    title = "\n".join(_title(entry) for entry in results)

    def draw(axes: Sequence[Axes]) -> None:
        for one, panel in zip(axes, panels, strict=True):
            panel.draw(one)
            bare(one)

    draw_figure(path, title, [panel.height_in for panel in panels], draw)


def _title(entry: Entry) -> str:
    said = f"{_name(entry)}: {_told(entry['value'])} {entry['unit']}"
    interval = entry.get("interval")
    if interval and interval["low"] is not None:
        said += f"  [{interval['low']:.1f}, {interval['high']:.1f}]"
    compared = entry.get("compared")
    if compared and compared["difference"] is not None:
        said += f", {compared['difference']:+.1f} to {_origin(compared)}"
        if compared["low"] is not None:
            said += f" [{compared['low']:+.1f}, {compared['high']:+.1f}]"
    return said


def _name(entry: Entry) -> str:
    iou = entry["parameters"].get("iou")
    return str(entry["protocol"]) + (f" at IoU {iou:g}" if iou not in (None, 0.5) else "")


def _origin(entry: Entry) -> str:
    """Return the name of the store behind a result."""
    inputs = entry["inputs"]
    return Path(next(iter(inputs.values()))["path"]).name


def _told(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _curves(entries: list[Entry]) -> list[_Panel]:
    """Return the panels of the curves of one protocol's results."""
    panels = []
    curves = {_name(one): one["curve"] for one in entries if one.get("curve")}
    if len(curves) == 1:
        (curve,) = curves.values()
        panels.append(_Panel(_CURVE_IN, _curve_drawer(entries[0], curve, None)))
    elif curves:  # the first line of each, in one panel
        across = next(iter(next(iter(curves.values()))))
        shared = {across: next(iter(curves.values()))[across]}
        shared |= {name: list(curve.values())[1] for name, curve in curves.items()}
        panels.append(_Panel(_CURVE_IN, _curve_drawer(entries[0], shared, None)))
    fitted = entries[0].get("thresholds") or {}
    if fitted.get("curve"):
        panels.append(_Panel(_CURVE_IN, _curve_drawer(entries[0], fitted["curve"], fitted)))
    return panels


def _curve_drawer(entry: Entry, curve: Mapping[str, Any], chosen: Any) -> Callable[[Axes], None]:
    """Return what draws a curve; `chosen` are fitted thresholds, None for a protocol's curve."""
    across, *lines = (name for name in curve if name != "threshold" or name == next(iter(curve)))

    def draw(axes: Axes) -> None:
        x_T = np.array(curve[across], np.float64)
        for name, colour in zip(lines, COLOURS * len(lines), strict=False):
            y_T = np.array([np.nan if y is None else y for y in curve[name]], np.float64)
            axes.plot(x_T, y_T, color=colour, label=name.replace("_", " "))
            if across == "threshold" and np.isfinite(y_T).any():
                best = int(np.nanargmax(y_T))
                axes.plot(x_T[best], y_T[best], "o", color=colour, markersize=5)
                said = f"{y_T[best]:.1f} at {x_T[best]:.3g}"
                axes.annotate(
                    said, (x_T[best], y_T[best]), xytext=(6, 4), textcoords="offset points"
                )
        axes.set_xlabel(across.replace("_", " "))
        axes.set_ylabel(entry["unit"] if chosen is None else str(chosen.get("objective", "")))
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        said = str(entry["protocol"]) if chosen is None else f"threshold chosen on {_place(chosen)}"
        axes.set_title(said, loc="left", fontsize=9, color=SOFT, parse_math=False)
        if lines:
            _plain_words(axes.legend(loc="best", frameon=False))

    return draw


def _place(chosen: Mapping[str, Any]) -> str:
    where = chosen.get("chosen_on") or {}
    num = where.get("num_images")
    return Path(str(where.get("path", "?"))).name + ("" if num is None else f", {num} images")


def _bar_panels(results: Sequence[Entry]) -> list[_Panel]:
    groups: dict[str, list[_Bars]] = {}
    for entry in results:
        compared, group = entry.get("compared"), groups.setdefault(str(entry["protocol"]), [])
        if compared:
            group.append(_bars(entry, f"{_name(entry)}, {_origin(entry)}"))
            group.append(_compared_bars(entry, compared))
        else:
            group.append(_bars(entry, _name(entry)))
    if len(results) == 2:
        groups = {"": [bars for group in groups.values() for bars in group]}
    panels = []
    for bars in groups.values():
        for first in range(0, len(bars), _MOST_BARS):
            group = bars[first : first + _MOST_BARS]
            names = [
                name
                for name in dict.fromkeys(name for one in group for name in one.value)
                if any(one.value.get(name) is not None for one in group)
            ]
            if names:
                panels.append(_Panel(_BARS_IN, _bars_drawer(group, names)))
    return panels


def _bars(entry: Entry, label: str) -> _Bars:
    named = {row["class_name"]: row["value"] for row in entry["per_class"]}
    return _Bars(label, entry["unit"], named)


def _compared_bars(entry: Entry, compared: Mapping[str, Any]) -> _Bars:
    names = [row["class_name"] for row in entry["per_class"]]
    values = dict(zip(names, compared["per_class"], strict=False))
    name = compared.get("protocol", _name(entry))
    return _Bars(f"{name}, {_origin(compared)}", entry["unit"], values)


def _bars_drawer(group: list[_Bars], names: list[str]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        if len(names) > _MOST_NAMED:
            _spread(axes, group, names)
        else:
            _named_bars(axes, group, names)
        _plain_words(
            axes.legend(
                loc="upper right", frameon=False, ncols=len(group), bbox_to_anchor=(1, 1.15)
            )
        )

    return draw


def _plain_words(legend: Legend) -> None:
    """Show names as they are: a $ in one begins no mathematical text."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def _named_bars(axes: Axes, group: list[_Bars], names: list[str]) -> None:
    """Draw a bar a class, the best class of the first group first."""
    first = group[0].value
    names = sorted(names, key=lambda name: -(first.get(name) or 0))
    width = 0.8 / len(group)
    for place, bars in enumerate(group):
        at = np.arange(len(names)) + (place - (len(group) - 1) / 2) * width
        height = np.array([bars.value.get(n) for n in names], np.float64)
        axes.bar(at, height, width * 0.94, color=COLOURS[place], label=bars.label)
    axes.set_xticks(np.arange(len(names)), names, parse_math=False)
    if len(names) > 6:
        axes.tick_params(axis="x", labelrotation=90 if len(names) > 20 else 40)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("center" if len(names) > 20 else "right")
            label.set_rotation_mode("anchor" if len(names) <= 20 else "default")
    axes.set_ylabel(group[0].unit)
    axes.set_xlim(-0.6, len(names) - 0.4)


def _spread(axes: Axes, group: list[_Bars], names: list[str]) -> None:
    """Draw how many classes have which value."""
    held = [[v for n in names if (v := bars.value.get(n)) is not None] for bars in group]
    every = np.concatenate([np.array(values, np.float64) for values in held])
    edges = np.histogram_bin_edges(every, 25).tolist()
    for values, bars, colour in zip(held, group, COLOURS, strict=False):
        axes.hist(values, edges, color=colour, alpha=0.6, label=bars.label)
    axes.set_xlabel(f"{group[0].unit} of a class")
    axes.set_ylabel("classes")


def _values(results: Sequence[Entry]) -> _Panel:
    """Return a panel of the values alone, for results without curve and class."""

    def draw(axes: Axes) -> None:
        values = [np.nan if entry["value"] is None else entry["value"] for entry in results]
        axes.bar(np.arange(len(values)), values, 0.6, color=COLOURS[0])
        axes.set_xticks(np.arange(len(values)), [_name(entry) for entry in results])
        axes.set_ylabel(results[0]["unit"])
        axes.tick_params(axis="x", colors=INK)

    return _Panel(_BARS_IN, draw)
