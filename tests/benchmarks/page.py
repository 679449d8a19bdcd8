"""Make ``docs/benchmarks/results.md`` from the JSON lines: ``python tests/benchmarks/page.py``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


def page(lines: list[dict]) -> str:
    """Return the page: the newest line of every benchmark."""
    newest = {line["benchmark"]: line for line in lines}
    parts = [
        "# Benchmark results",
        "",
        "The newest run of each; made by `python tests/benchmarks/page.py` from "
        "[results.jsonl](results.jsonl). Ratios compare with a reference in the same run.",
    ]
    for name, line in newest.items():
        said = {k: v for k, v in line.items() if k not in ("benchmark", "date", "commit")}
        parts += ["", f"## {name}", "", f"{line['date']}, commit {line['commit']}", ""]
        parts += ["| what | value |", "|---|---|"]
        parts += [f"| {key} | {value} |" for key, value in _rows(said)]
    return "\n".join(parts) + "\n"


def _rows(values: dict) -> Iterator[tuple[str, object]]:
    """Yield names and values; a table within a table has a row for each of its rows."""
    for key, value in values.items():
        if not isinstance(value, dict):
            yield key, ", ".join(map(str, value)) if isinstance(value, list) else value
            continue
        for name, one in value.items():
            said = one
            if isinstance(one, dict):
                said = ", ".join(f"{n} {_plain(v)}" for n, v in one.items())
            yield f"{key}: {name}", said


def _plain(value: object) -> object:
    """Return a mean and its deviation as they are printed, a value with its interval, a list."""
    if not isinstance(value, list):
        return value
    if len(value) == 2:
        return f"{value[0]} ± {value[1]}"
    if len(value) == 3:
        return f"{value[0]:+} ({value[1]:+} to {value[2]:+})"
    return " ".join(map(str, value))


if __name__ == "__main__":
    text = (FOLDER / "results.jsonl").read_text()
    (FOLDER / "results.md").write_text(page([json.loads(row) for row in text.splitlines()]))
    sys.stdout.write(f"{FOLDER / 'results.md'}\n")
