"""The recipes run: every command line of ``docs/recipes``, end to end and in miniature.

The commands are those of the pages. What stands between them and a test is in `PAGES` and
`EVERYWHERE` below: full-scale numbers that become small ones. Data sets and published weights are
those of `tests.recipe_data`. The numbers as they stand on the pages are checked without running:
each command line, as the shell expands it, is read by the command line's own parser.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors import safe_open

from tests.recipe_data import write_recipe_data, write_weights
from tests.test_docs import DOCS, _environment, blocks_of, place, server

__all__ = ["place", "server"]  # fixtures

RECIPES = DOCS / "recipes"
INDEX = RECIPES / "README.md"
NOT_RUN = "run in miniature by tests/test_recipes.py"

EVERYWHERE = (
    (r"wsltool ingest (voc|folder) ", r"wsltool ingest \1 --limit 2 "),
    (
        r"wsltool (train-cls|cam|extract-features|refine|beam-search) ",
        r"wsltool \1 --workers 0 --device cpu ",
    ),
    (r"--iterations \d{4,}", "--iterations 2"),
    (r"--batch-size \d+", "--batch-size 2"),
    (r"--validate-every \d+", "--validate-every 2"),
    (r"--keep-at \d{4,}(?!,)", "--keep-at 1"),
)
"""On any page: what to look for, and what stands there in miniature."""

PAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "oquab-2015": (
        (r"210", "1"),
        (r"510", "2"),
        (r"4200", "3"),
        (r"--input-size 500", "--input-size 330"),  # .7 of it is still a window
        (r"\.5,\.7,1,1\.4,2,2\.8", ".7,1"),  # 2.8 of it takes a minute
        (r"--class motorbike", "--class car"),
        (r"wsltool propose", "wsltool propose --longest-side 100"),
    ),
    "two-phase-2017": ((r"--input-size 321", "--input-size 33"),),
    "cam-2016": (
        (r"--input-size 224", "--input-size 64"),
        (r"--input-size 227", "--input-size 99"),
    ),
    "sec-foreground-net": ((r"--input-size 321", "--input-size 33"),),
    "beam-search-2016": (
        # 143 million numbers that all learn: 2 GB; tests/nets/test_fc_networks.py has it
        (r"alexnet_adapted vgg16_adapted", "alexnet_adapted"),
        (r"vgg16_adapted", "alexnet_adapted"),
        (r"--fraction .1", "--fraction .1 --limit 1"),  # a tenth of two, of each class one
        (r"--beam 8", "--beam 2"),
        (r"--levels 10", "--levels 2"),
        (r"--bootstrap 1000", "--bootstrap 20"),
    ),
    "micro-annotation-2016": (
        (r"--input-size 224", "--input-size 64"),
        (r"--input-size 321", "--input-size 33"),
        # nobody is there to look at pictures
        (r"label clusters", "label --oracle train.zarr clusters"),
        (r"label voc-clusters", "label --oracle trainaug.zarr voc-clusters"),
    ),
}
"""What else is replaced on each page; every pattern must be there."""

STARTS = {
    "oquab-2015": "alexnet_sliding: 14 arrays (57.0 M numbers) from alexnet-owt-7be5be79.pth",
    "two-phase-2017": "vgg_cam41: 26 arrays (14.7 M numbers) from vgg16-397923af.pth",
    "cam-2016": "alexnet_gap: 8 arrays (1.9 M numbers) from caffe-alexnet.safetensors",
    "sec-foreground-net": "vgg_cam41: 26 arrays (14.7 M numbers) from vgg16-397923af.pth",
    "beam-search-2016": "alexnet_adapted: 14 arrays (57.0 M numbers) from alexnet-owt",
    "micro-annotation-2016": "vgg_gap: 26 arrays (14.7 M numbers) from vgg16-397923af.pth",
}
"""What a training says of its start, so that ``--init published`` is known to be taken."""

pages = pytest.mark.parametrize("page", sorted(PAGES))


def script_of(page: str) -> str:
    """Return all commands of a page as one shell script."""
    parts = []
    for block in blocks_of(RECIPES / f"{page}.md"):
        if block.language == "python":
            parts.append(f"python - <<'END_OF_RECIPE'\n{block.text}\nEND_OF_RECIPE")
        elif block.language == "bash":
            parts.append(f"echo '== {page} line {block.line}' >&2\n{block.text}")
    return "\n".join(parts) + "\n"


def miniature(page: str) -> str:
    """Return the page's script with small numbers."""
    script = script_of(page)
    for pattern, small in PAGES[page]:
        assert re.search(pattern, script), f"{page}: nothing to replace for {pattern}"
        script = re.sub(pattern, small, script)
    for pattern, small in EVERYWHERE:
        script = re.sub(pattern, small, script)
    large = re.findall(r"--(?:iterations|batch-size|validate-every|keep-at) \d{2,}", script)
    assert not large, f"{page}: left as at full scale: {large}"
    return script


def test_every_recipe_is_here_and_says_so() -> None:
    assert {one.stem for one in RECIPES.glob("*.md")} - {INDEX.stem} == set(PAGES) == set(STARTS)
    for page in RECIPES.glob("*.md"):
        for block in blocks_of(page):
            reason = block.reason or ""
            assert reason.endswith(NOT_RUN), f"{page.name} line {block.line}: {reason!r}"


def test_every_replacement_is_of_use() -> None:
    scripts = "".join(map(script_of, PAGES))
    for pattern, _small in EVERYWHERE:
        assert re.search(pattern, scripts), pattern


# ---------------------------------------------------------------- at full scale, not run


def expanded(script: str, folder: Path) -> list[list[str]]:
    """Return the words of every ``wsltool`` command as the shell makes them; none is run."""
    calls = folder / "calls"
    programs = {
        # In one write: the stages of a pipe run side by side.
        "wsltool": f'printf "%s\\n" "$@" "" >> "{calls}"',
        **dict.fromkeys(("python", "grep"), ":"),
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    subprocess.run(["bash", "-euc", script], cwd=folder, env=environment, check=True, timeout=60)
    return [call.split("\n") for call in calls.read_text().removesuffix("\n\n").split("\n\n")]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the command's name and the values of its options, read as the command line does."""
    from wsltool.cli import commands as _declared  # noqa: F401
    from wsltool.cli.app import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("wsltool", list(words))
    name = ""
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)
    return name, dict(context.params)


@pages
def test_full_scale_command_lines_are_understood(page: str, tmp_path: Path) -> None:
    from wsltool.metrics.protocols import find_protocol
    from wsltool.nets.train_config import TrainConfig

    calls = expanded(script_of(page), tmp_path)
    assert sum(words[0] == "train-cls" for words in calls) >= 1
    for words in calls:
        name, values = parsed(words)
        if name == "train-cls":
            kept = {n: v for n, v in values.items() if n in TrainConfig.__dataclass_fields__}
            config = TrainConfig(**kept | {"augment": values["augment"] or "crop"})
            assert config.optimizer == "sgd"
            assert config.num_iterations(1) >= 4000
        elif name == "score":
            assert all(find_protocol(one) for one in values["protocol"])
        elif name == "effort":
            assert find_protocol(values["protocol"])


def test_a_command_line_that_is_wrong_is_told(tmp_path: Path) -> None:
    script = "for n in 1 2; do\n  wsltool cam a.zarr --model m$n \\\n    --scale 1\ndone"
    assert expanded(script, tmp_path)[1] == ["cam", "a.zarr", "--model", "m2", "--scale", "1"]
    with pytest.raises(Exception, match="No such option: --scale"):
        parsed(expanded(script, tmp_path)[0])


# ---------------------------------------------------------------- in miniature, run


@pytest.fixture(scope="session")
def recipe_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data sets."""
    return write_recipe_data(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = write_weights(tmp_path_factory.mktemp("torch-home"))
    yield home
    shutil.rmtree(home)  # 350 MB


def run_page(page: str, data: Path, weights: Path, folder: Path) -> str:
    """Run the miniature of a page in `folder`; return what it printed."""
    for one in data.iterdir():
        (folder / one.name).symlink_to(one)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", miniature(page)],
        cwd=folder,
        env=_environment(folder.parent / "bin") | {"TORCH_HOME": str(weights)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    told = f"{page} exits {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr, told
    assert STARTS[page] in done.stderr, told
    return done.stdout


def header(file: Path) -> dict[str, Any]:
    """Return what a model file says of itself."""
    with safe_open(file, "pt") as opened:
        found: dict[str, Any] = json.loads(opened.metadata()["wsltool"])
    return found


def score_of(file: Path, protocol: str) -> dict[str, Any]:
    """Return the result of one protocol in a file that ``score`` wrote."""
    results = json.loads(file.read_text())["results"]
    found: dict[str, Any] = next(one for one in results if one["protocol"] == protocol)
    return found


@pytest.mark.slow
def test_oquab_2015(recipe_data: Path, weights: Path, place: Path) -> None:
    run_page("oquab-2015", recipe_data, weights, place)
    weak = header(place / "weak.safetensors")
    assert (weak["pool"], weak["loss"], weak["count_padding"]) == ("gmp", "logistic", True)
    assert not header(place / "inside-picture.safetensors")["count_padding"]
    assert 0 <= score_of(place / "weak.json", "cls-map")["value"] <= 100
    assert score_of(place / "centre.json", "point")["baselines"][0]["name"] == "image centre"
    assert (place / "figure1" / "index.html").is_file()


@pytest.mark.slow
def test_two_phase_2017(recipe_data: Path, weights: Path, place: Path) -> None:
    run_page("two-phase-2017", recipe_data, weights, place)
    made = header(place / "third.safetensors")["provenance"]["made"]
    assert {"suppress", "suppress2"} <= made["inputs"].keys()
    assert made["params"]["suppress_threshold"] == [0.6, 0.4]
    for phase in ("first", "second", "third", "control"):
        assert 0 <= score_of(place / f"{phase}.json", "point")["value"] <= 100
    assert score_of(place / "saliency-merged.json", "saliency-ap")["extra"]
    assert (place / "figure4" / "index.html").is_file()


@pytest.mark.slow
def test_cam_2016(recipe_data: Path, weights: Path, place: Path) -> None:
    run_page("cam-2016", recipe_data, weights, place)
    for network in ("vgg", "googlenet", "alexnet"):
        found = header(place / f"{network}.safetensors")
        assert (found["arch"], found["num_classes"]) == (f"{network}_gap", 6)
        assert 0 <= score_of(place / f"{network}.json", "ilsvrc-top5")["value"] <= 100
    assert 0 <= score_of(place / "ten.json", "ilsvrc-top5")["value"] <= 100


@pytest.mark.slow
def test_sec_foreground_net(recipe_data: Path, weights: Path, place: Path) -> None:
    printed = run_page("sec-foreground-net", recipe_data, weights, place)
    share = re.search(r"foreground: ([\d.]+) % of the cells", printed)
    assert share is not None
    assert 0 < float(share[1]) < 100
    assert header(place / "foreground.safetensors")["provenance"]


@pytest.mark.slow
def test_beam_search_2016(recipe_data: Path, weights: Path, place: Path) -> None:
    run_page("beam-search-2016", recipe_data, weights, place)
    for name in ("alexnet_adapted.val", "alexnet_adapted.pairs", "coco"):
        assert 0 <= score_of(place / f"{name}.json", "cls-map")["value"] <= 100
        for file, ranked_by in ((f"{name}.json", "map"), (f"{name}.cls.json", "cls")):
            found = score_of(place / file, "point")
            assert found["parameters"] == {
                "tolerance": 0,
                "metric": "chebyshev",
                "point_at": "region",
                "confidence": ranked_by,
                "misses": "fp",
            }
            assert found["baselines"][0]["name"] == "image centre"
    for table, protocol in ((3, "voc07-ap"), (4, "voc-ap")):
        found = score_of(place / f"table{table}.json", protocol)
        assert 0 <= found["value"] <= 100
        assert found["thresholds"]["objective"] == "voc-ap"
        assert not found["thresholds"]["fitted_on_scored"]
    assert score_of(place / "greedy.json", "point")["compared"]
    model = header(place / "coco.safetensors")
    assert model["class_name"] == ["person", "car", "traffic light"]
    assert (model["pool"], model["loss"]) == ("none", "softmax-bce")


@pytest.mark.slow
def test_micro_annotation_2016(recipe_data: Path, weights: Path, place: Path) -> None:
    run_page("micro-annotation-2016", recipe_data, weights, place)
    for data, protocol in (("", "gt-known"), ("voc-", "corloc")):
        num_labelled = len(json.loads((place / f"{data}labels.json").read_text())["classes"])
        assert num_labelled > 0
        assert 0 <= score_of(place / f"{data}after.json", protocol)["value"] <= 100
    found = score_of(place / "effort.json", "ilsvrc-top5")
    assert 0 < found["effort"]["counts"]["labelled"] <= 6
    for gallery in ("parts", "mended"):
        assert (place / gallery / "index.html").is_file()
