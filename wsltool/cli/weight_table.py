"""The table of ``wsltool fit-cooccurrence``."""

from __future__ import annotations

from typing import Any

from wsltool.cli.tables import write_rich

__all__ = ["write_weight"]


def write_weight(found: dict[str, Any]) -> None:
    """Write what `fit_cooccurrence` found: the weight that is best, and what each comes to."""
    from rich.table import Table
    from rich.text import Text

    for result in found["results"]:
        unit, images = result["unit"], result["images"]
        head = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        gain = f"{result['value'] - result['value_at_0']:+.2f}"
        head.add_row("alpha", f"{result['alpha']:g}", f"the best of {len(_curve(result))}")
        head.add_row(result["objective"], f"{result['value']:.2f} {unit}", f"{gain} from alpha 0")
        several = f"{images['with_several_classes']} with several classes"
        head.add_row("images", str(images["scored"]), Text(f"{several}{_left_out(images)}"))
        table = Table("alpha", result["objective"], "", box=None)
        for alpha, value in _curve(result):
            mark = "best" if alpha == result["alpha"] else ""
            table.add_row(f"{alpha:g}", f"{value:.2f}", mark)
        write_rich(head, "", table)


def _curve(result: dict[str, Any]) -> list[tuple[float, float]]:
    return list(zip(result["curve"]["alpha"], result["curve"]["value"], strict=True))


def _left_out(images: dict[str, Any]) -> str:
    words = [f", {images[key]} {key}" for key in ("missing", "skipped") if images[key]]
    limit = images["limit"]
    if limit:
        how = "first" if limit["how"] == "limit" else "selected"
        words.append(f", {how} {limit['num_rows']} of {limit['of']}")
    return "".join(words)
