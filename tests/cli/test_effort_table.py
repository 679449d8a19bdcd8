from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from wsltool.cli.effort_table import _class_table


def _row(name: str) -> dict[str, Any]:
    return {
        "class_name": name,
        "before": 50.0,
        "after": 100.0,
        "gain": 50.0,
        "low": 1.0,
        "high": 99.0,
        "second_eigenvalue": 0.5,
        "num_clusters": 2,
        "num_distractors": None,
        "place": 1,
    }


def test_a_name_with_its_synonyms_leaves_room_for_the_numbers() -> None:
    long = "great white shark, white shark, man-eater, Carcharodon carcharias"
    shown = ["[bold]x[/bold]", long, "魚" * 40]
    file = io.StringIO()
    console = Console(file=file, width=120, color_system=None)
    console.print(_class_table({"effort": {"classes": [_row(name) for name in shown]}}))
    lines = file.getvalue().splitlines()
    assert len(lines) == 1 + len(shown)
    assert lines[1].startswith(" [bold]x[/bold] ")
    assert "great white shark, white shark,…" in lines[2]
    assert "魚" * 15 + " …" in lines[3]
    assert all("[1.0, 99.0]  0.500         2            –      1" in line for line in lines[1:])
