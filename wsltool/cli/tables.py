"""Results for people: tables on the private stdout; for programs: JSON."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from typing import Any

from wsltool.cli.pipe import is_terminal, write_result

__all__ = ["write_json", "write_layers", "write_scores", "write_store", "write_verdict"]

_MOST_LISTED = 20


def write_json(found: Any) -> None:
    """Write a result as JSON; what is not a number becomes null."""
    write_result(json.dumps(_plain(found), indent=2, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_rich(*parts: Any) -> None:
    """Write rich tables or text: coloured on a terminal, plain text elsewhere."""
    from rich.console import Console

    text = io.StringIO()
    width = shutil.get_terminal_size().columns if is_terminal() else 120
    console = Console(file=text, force_terminal=is_terminal(), width=width, highlight=False)
    for part in parts:
        console.print(part)
    write_result("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


def write_store(found: dict[str, Any]) -> None:
    """Write what `inspect` found."""
    from rich.table import Table
    from rich.text import Text

    meta = found["meta"]
    about = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    about.add_row("store", Text(found["path"]))
    about.add_row("kind", f"{meta['kind']}, {_counted(found)}")
    about.add_row("made by", Text(f"wsltool {meta.get('stage', '?')} {meta.get('version', '')}"))
    for name, value in meta.get("params", {}).items():
        if value is None:
            continue
        about.add_row(f"  --{name.replace('_', '-')}", Text(str(value)))
    for role, record in meta.get("inputs", {}).items():
        about.add_row(f"from {role}", Text(str(record.get("path", ""))))
    if meta.get("limit"):
        limit = meta["limit"]
        about.add_row("rows", f"{limit['num_rows']} of {limit['of']} ({limit['how']})")
    about.add_row("skipped", str(meta.get("skipped", 0)))
    for name, value in found["attributes"].items():
        about.add_row(name, Text(str(_short(value))))
    about.add_row("created", Text(str(meta.get("created", "?"))))
    about.add_row("digest", Text(str(meta.get("digest", "?"))))
    arrays = Table("array", "axes", "shape", "dtype", box=None, padding=(0, 2, 0, 0))
    for name, array in found["arrays"].items():
        shape = " × ".join(map(str, array["shape"]))
        arrays.add_row(name, " ".join(array["dims"]), shape, array["dtype"])
    write_rich(about, "", arrays)


def write_layers(found: dict[str, Any]) -> None:
    """Write what `inspect_layers` found."""
    from rich.table import Table
    from rich.text import Text

    size_px = found["input_size"]
    weights = ", with random weights: its own are not here" if found["random_weights"] else ""
    about = Text(f"{found['model']} on pictures of {size_px}x{size_px}{weights}")
    columns = ("layer", "kind", "channels", "rows × cols", "nonnegative", "")
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for layer in found["layers"]:
        table.add_row(
            Text(layer["name"]),
            layer["kind"],
            str(layer["channels"]),
            " × ".join(map(str, layer["grid"])),
            "yes" if layer["nonnegative"] else "no",
            "default" if layer["default"] else "",
        )
    write_rich(about, "", table)


def _counted(found: dict[str, Any]) -> str:
    """Return how many rows a store has, in words."""
    if found["meta"]["kind"] == "clusters":
        return f"{found['num_images']} classes"
    return f"{found['num_images']} images"


def _short(value: Any) -> Any:
    """Return an attribute with long lists told by their length: a curve would fill the screen."""
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list) and len(value) > _MOST_LISTED:
        return f"{len(value)} values"
    return value


def write_verdict(found: dict[str, Any]) -> None:
    """Write what `verify` found."""
    problems = found["problems"]
    verdict = "\n".join(problems) if problems else "ok: schema, every chunk and the digest"
    write_result(f"{found['path']}: {verdict}\n")


def write_scores(found: dict[str, Any]) -> None:
    """Write what `score` found: the number beside its baselines, then a row a class."""
    for result in found["results"]:
        write_rich(*_score_parts(result))


def _score_parts(result: dict[str, Any]) -> list[Any]:
    from rich.table import Table
    from rich.text import Text

    unit = result["unit"]
    words = {True: "higher is better", False: "error, lower is better", None: "a distance"}
    settings = "".join(
        f", {name.replace('_', '-')} {_setting(one)}" for name, one in result["parameters"].items()
    )
    about = words[result["higher_is_better"]] + settings
    head = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    value = f"{_number(result['value'])} {unit}{_interval(result.get('interval'))}"
    head.add_row(result["protocol"], value, Text(about))
    for name, value, said in [*_other_rows(result), *_baseline_rows(result)]:
        head.add_row(name, f"{value} {unit}", Text(said))
    if result.get("thresholds"):
        head.add_row("threshold", *map(Text, _threshold_words(result["thresholds"])))
    images = result["images"]
    head.add_row("images", str(images["scored"]), _image_words(images))
    for name, value in [*result["extra"].items(), *_mistake_rows(result)]:
        values = value if isinstance(value, list) else [value]
        shown = _setting if name.startswith("threshold") else _number
        head.add_row(name.replace("_", " "), "  ".join(map(shown, values)))
    rows = [row for row in result["per_class"] if row["value"] is not None]
    return [head, "", _class_table(rows, unit)] if rows else [head]


def _class_table(rows: list[dict[str, Any]], unit: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    counts = [name for name in rows[0] if name.startswith("num_")]
    table = Table("class", unit, *[c[4:].replace("_", " ") for c in counts], box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        numbers = [str(row[c]) for c in counts]
        table.add_row(Text(row["class_name"]), _number(row["value"]), *numbers)
    return table


def _baseline_rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for baseline in result["baselines"]:
        said = "baseline"
        if "fraction" in baseline:
            said += f", fraction {baseline['fraction']:g} fitted on {baseline['fitted_on']}"
        if baseline.get("difference") is not None:
            said += f", the result is {baseline['difference']:+.1f} from it"
        yield baseline["name"], _number(baseline["value"]), said


def _other_rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what the value stands beside: other runs, another store, how its threshold came."""
    runs = result.get("runs")
    if runs:
        values = ", ".join(map(_number, runs["values"]))
        said = f"mean of {values}; standard deviation {_number(runs['sd'], 2)}"
        yield f"{len(runs['values'])} runs", _number(runs["mean"]), said
    compared = result.get("compared")
    if compared:
        said = f"difference {_number(compared['difference'], 2, sign='+')}"
        said += _interval(compared, 2) + f", {next(iter(compared['inputs'].values()))['path']}"
        yield "compared with", _number(compared["value"]), said


def _threshold_words(found: dict[str, Any]) -> tuple[str, str]:
    """Return the threshold that the boxes were cut at, and where it comes from."""
    value, where = found["value"], found.get("chosen_on")
    said = "one a class" if isinstance(value, list) else f"{value:g}"
    if found["source"] == "rule":
        said = ", ".join(map(str, value))
    if not where:
        return said, {"given": "as given", "rule": "of the rule"}[found["source"]]
    words = f"chosen by {found['objective']} on {where['path']}, {where['num_images']} images"
    if found.get("overlap"):
        words += f", {found['overlap']} of them scored here"
    return said, words


def _mistake_rows(result: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for name, number in result.get("mistakes", {}).items():
        if number:
            yield f"mistake: {name}", number


def _interval(found: dict[str, Any] | None, digits: int = 1) -> str:
    if not found or found["low"] is None:
        return ""
    return f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _setting(value: float | str | list[str] | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, list) else str(value)


def _image_words(images: dict[str, Any]) -> str:
    words = [f"{images[key]} {key.replace('_', ' ')}" for key in ("missing", "skipped")]
    limit = images["limit"]
    if limit:
        how = "first" if limit["how"] == "limit" else "selected"
        words.append(f"{how} {limit['num_rows']} of {limit['of']}")
    return ", ".join(words)


def _number(value: float | None, digits: int = 1, sign: str = "") -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:{sign}.{digits}f}"
