"""Make ``docs/benchmarks/results.md`` from the JSON lines: ``python tests/benchmarks/page.py``."""

from __future__ import annotations

import json
import sys
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
        parts += [f"| {key} | {value} |" for key, value in said.items()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    text = (FOLDER / "results.jsonl").read_text()
    (FOLDER / "results.md").write_text(page([json.loads(row) for row in text.splitlines()]))
    sys.stdout.write(f"{FOLDER / 'results.md'}\n")
