"""The table of ``wsltool effort``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wsltool.cli.tables import write_rich

__all__ = ["write_effort"]

_NAME_CELLS = 32


def write_effort(found: dict[str, Any]) -> None:
    """Write what `effort` found: the gain, the paper's counts, a row for each class."""
    from rich.table import Table
    from rich.text import Text

    for result in found["results"]:
        head = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value, said in _head_rows(result):
            head.add_row(name, Text(value), Text(said))
        write_rich(head, "", _class_table(result))


def _head_rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    effort, old, unit = result["effort"], result["compared"], result["unit"]
    error = ", an error: gains are what it fell by" if not result["higher_is_better"] else ""
    values = f"{_number(old['value'])} → {_number(result['value'])} {unit}"
    yield result["protocol"], values, f"{result['images']['scored']} images{error}"
    ends = "" if effort["low"] is None else f" [{effort['low']:.2f}, {effort['high']:.2f}]"
    yield "gain", f"{_number(effort['gain'], 2, '+')}{ends}", "95 % interval, paired"
    counts = effort["counts"]
    for name, value in counts.items():
        said = f"by at least {effort['min_change']:g} points" if name == "changed" else ""
        yield f"classes {name.replace('_', ' ')}".replace("s classes", "s"), _count(value), said
    mean = effort["mean_change_with_distractors"]
    if mean is not None:
        yield "mean change", _number(mean, 2, "+"), "of the classes with distractors"
    if effort["seconds"] is not None:
        yield "seconds", f"{effort['seconds']:.0f}", "spent on labelling"
    yield from _curve_rows(effort)


def _curve_rows(effort: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    order = f"{effort['num_annotated']} classes in ascending order of the second eigenvalue"
    if effort["area"] is None:
        yield "curve", "–", f"{order}: no gain to take shares of"
        return
    yield "area", f"{effort['area']:.2f}", f"{order}; a random order: 0.50"
    for share, fraction in effort["fraction_for_share"].items():
        value = "–" if fraction is None else f"{100 * fraction:.0f} %"
        yield f"{100 * float(share):.0f} % of the gain", value, "of the classes annotated"


def _class_table(result: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    names = ("class", "before", "after", "gain", "interval", "λ₂", "clusters", "distractors")
    table = Table(*names, "place", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result["effort"]["classes"]:
        ends = "" if row["low"] is None else f"[{row['low']:.1f}, {row['high']:.1f}]"
        table.add_row(
            _name(row["class_name"]),
            _number(row["before"]),
            _number(row["after"]),
            _number(row["gain"], 1, "+"),
            Text(ends),
            _number(row["second_eigenvalue"], 3),
            str(row["num_clusters"]),
            _count(row["num_distractors"]),
            _count(row["place"]),
        )
    return table


def _name(text: str) -> Any:
    """Return a class's name; of one with all its synonyms, as much as leaves room for numbers."""
    from rich.text import Text

    name = Text(text)
    name.truncate(_NAME_CELLS, overflow="ellipsis")
    return name


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)


def _number(value: float | None, digits: int = 1, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{digits}f}"
