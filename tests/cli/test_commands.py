"""Every command: what reaches the stage function, its defaults, options, help and refusals."""

from __future__ import annotations

import importlib
import inspect
import signal
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wsltool.cli import commands
from wsltool.cli.app import app
from wsltool.stages.options import RunOptions, Settings, TorchOptions

assert commands  # importing it declares them

TALK = "-v --verbose, -q --quiet"
OUT = f"-o --output, --overwrite, {TALK}"
ROWS = f"-o --output, --overwrite, --shard, --limit, --on-bad, {TALK}"
TORCH = "--device, --batch-size, --workers, --precision"

OPTIONS = {
    "baseline": f"--prior, --fraction, --sigma, --grid, --like, --seed, {ROWS}",
    "beam-search": "--model, --weights, --classes, --mode, --beam, --levels, --children, "
    "--map-size, --map-dtype, --keep-candidates, --cooccurrence, --images, " + f"{TORCH}, {ROWS}",
    "boxes": "--rule, --threshold, --threshold-of, --components, --connectivity, --empty, "
    "--box-score, --fit-threshold, --fit-truth, --fit-per, --fit-objective, --fit-step, " + ROWS,
    "cam": "--model, --weights, --classes, --scales, --flip, --crops, --input-size, --fit, "
    f"--scores, --map-dtype, --cooccurrence, --images, {TORCH}, {ROWS}",
    "cluster": "--eigenvalue-threshold, --min-clusters, --max-clusters, --centroid, --seed, "
    f"-o --output, --overwrite, --shard, {TALK}",
    "convert": OUT,
    "demo": f"-o --output, --num-train, --num-test, --epochs, --seed, {TALK}",
    "effort": "--before, --clusters, --labels, --truth, --protocol, --iou, --classes, "
    f"--min-change, --bootstrap, --plot, -o --output, --json, --seed, {TALK}",
    "ingest coco": f"--images, --no-images, --no-masks, --embed, {ROWS}",
    "ingest cub": f"--split, --embed, {ROWS}",
    "export": f"--form, --images, --split, {OUT}",
    "extract-features": "--model, --weights, --layer, --cells, --threshold, --feature-dtype, "
    f"--input-size, --fit, --images, {TORCH}, {ROWS}",
    "fit-cooccurrence": "--model, --objective, --alphas, --tolerance, --point-at, --truth, "
    f"-o --output, --json, {TALK}",
    "ingest boxes": f"--images, --form, --classes, {ROWS}",
    "ingest folder": f"--labels, --boxes, --classes, --embed, {ROWS}",
    "ingest ilsvrc": f"--split, --classes, --labels, --blacklist, --embed, {ROWS}",
    "ingest openimages": f"--masks, --images, --no-images, --classes, --embed, {ROWS}",
    "ingest maps": "--images, --classes, --class-score, --score-kind, --map-dtype, " + ROWS,
    "ingest masks": f"--images, {ROWS}",
    "ingest voc": f"--split, --classes, --embed, {ROWS}",
    "ingest wsol": f"--images, --no-images, --masks, --classes, --embed, {ROWS}",
    "inspect": f"--layers, --weights, --json, {TALK}",
    "label": "--answers, --oracle, --oracle-from, --oracle-rule, --like, --features, --samples, "
    f"--export, --port, --no-browser, --images, --seed, {OUT}",
    "merge": f"--how, --probability, {ROWS}",
    "propose": f"--mode, --max-boxes, --longest-side, --images, --seed, {ROWS}",
    "rank-boxes": "--boxes, --aggregate, --threshold, --keep, --nms, --box-score, --same-class, "
    f"{ROWS}",
    "refine": "--labels, --clusters, --features, --model, --weights, --unsure, --fill, --images, "
    f"{TORCH}, {ROWS}",
    "score": "--protocol, --truth, --iou, --tolerance, --metric, --point-at, --confidence, "
    "--misses, --pairs, --interval, --definition, --grid, --regions, --other, --classes, "
    "--compare, --runs, --bootstrap, --seed, --without-skipped, --plot, --workers, --shard, "
    f"-o --output, --json, {TALK}",
    "select": f"--fraction, --ids, --class, --not-in, --seed, {ROWS}",
    "train-cls": "--model, --init, --loss, --pool, --count-padding, --masked-pooling, --freeze, "
    "--optimizer, --lr, --lr-multiplier, --schedule, --weight-decay, --epochs, --iterations, "
    "--accumulate, --augment, --input-size, --fit, --suppress, --suppress-threshold, "
    "--suppress-layer, --validate, --validate-every, --keep-at, --cache, --checkpoint-minutes, "
    f"--images, --seed, {TORCH}, -o --output, --overwrite, --limit, {TALK}",
    "verify": f"--json, {TALK}",
    "view": "--over, --compare, --before, --search, --labels, --features, --truth, --images, "
    f"--num, --samples, {OUT}",
}
"""All options of all commands, frozen: adding one means writing it here."""

FUNCTIONS = {
    "baseline": "wsltool.stages.baseline.baseline",
    "beam-search": "wsltool.stages.beam_search.beam_search",
    "boxes": "wsltool.stages.boxes.boxes",
    "cam": "wsltool.stages.cam.cam",
    "cluster": "wsltool.stages.cluster.cluster",
    "convert": "wsltool.stages.convert.convert",
    "demo": "wsltool.stages.demo.demo",
    "effort": "wsltool.stages.effort.effort",
    "ingest coco": "wsltool.stages.ingest.ingest_coco",
    "ingest cub": "wsltool.stages.ingest.ingest_cub",
    "export": "wsltool.stages.export.export",
    "extract-features": "wsltool.stages.extract_features.extract_features",
    "fit-cooccurrence": "wsltool.stages.fit_cooccurrence.fit_cooccurrence",
    "ingest boxes": "wsltool.stages.ingest_boxes.ingest_boxes",
    "ingest folder": "wsltool.stages.ingest.ingest_folder",
    "ingest ilsvrc": "wsltool.stages.ingest.ingest_ilsvrc",
    "ingest openimages": "wsltool.stages.ingest.ingest_openimages",
    "ingest maps": "wsltool.stages.ingest_maps.ingest_maps",
    "ingest masks": "wsltool.stages.ingest_masks.ingest_masks",
    "ingest voc": "wsltool.stages.ingest.ingest_voc",
    "ingest wsol": "wsltool.stages.ingest.ingest_wsol",
    "inspect": "wsltool.stages.inspect.inspect",
    "label": "wsltool.stages.label.label",
    "merge": "wsltool.stages.merge.merge",
    "propose": "wsltool.stages.propose.propose",
    "rank-boxes": "wsltool.stages.rank_boxes.rank_boxes",
    "refine": "wsltool.stages.refine.refine",
    "score": "wsltool.stages.score.score",
    "select": "wsltool.stages.select.select",
    "train-cls": "wsltool.stages.train_cls.train_cls",
    "verify": "wsltool.stages.verify.verify",
    "view": "wsltool.stages.view.view",
}
MINIMAL = {
    "beam-search": "--model m",
    "cam": "--model m",
    "effort": "--before b.h5 --clusters c.h5",
    "export": "--form csv",
    "ingest boxes": "--images i.zarr",
    "ingest maps": "--images i.zarr",
    "ingest masks": "--images i.zarr",
    "rank-boxes": "--boxes b.h5",
    "refine": "--labels l.json",
    "score": "--protocol voc-ap",
    "train-cls": "--model m",
}
"""What a command cannot do without, besides INPUT."""

COMMON = {
    "output": None,
    "overwrite": False,
    "shard": None,
    "limit": None,
    "on_bad": "stop",
    "device": "auto",
    "batch_size": 32,
    "workers": None,
    "precision": "float32",
}
every_command = pytest.mark.parametrize("name", OPTIONS)


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name, command


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Put back the handlers that a command installs."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class CalledError(Exception):
    """Ends a command once its stage function is called."""


@pytest.fixture
def reaching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command; return the positional and the keyword arguments of its stage function."""

    def run(name: str, arguments: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        reached: list[Any] = []

        def stage(*args: Any, **more: Any) -> None:
            reached.extend([args, more])
            raise CalledError

        module, _, function = FUNCTIONS[name].rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), function, stage)
        done = CliRunner().invoke(app, [*name.split(), *arguments.split()])
        assert reached, done.output
        return reached[0], reached[1]

    return run


def _stage_function(name: str) -> Any:
    module, _, function = FUNCTIONS[name].rpartition(".")
    return getattr(importlib.import_module(module), function)


# The list of commands and options


def test_these_are_the_commands() -> None:
    assert sorted(COMMANDS) == sorted(OPTIONS) == sorted(FUNCTIONS)


@every_command
def test_these_are_its_options(name: str) -> None:
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    assert ", ".join(" ".join([*p.opts, *p.secondary_opts]) for p in options) == OPTIONS[name]


@every_command
def test_input_is_the_only_positional_argument(name: str) -> None:
    found = [p.metavar for p in COMMANDS[name].params if p.param_type_name == "argument"]
    assert found == {"demo": [], "merge": ["INPUT INPUT..."]}.get(name, ["INPUT"])


@every_command
def test_a_command_has_few_options_of_its_own(name: str) -> None:
    shared = {"seed", "images", "weights", "json", "workers", "verbose", "quiet", *COMMON}
    options = {p.name for p in COMMANDS[name].params if p.param_type_name == "option"}
    assert len(options - shared) <= {"train-cls": 26, "score": 20}.get(name, 12)


@every_command
def test_its_help_says_what_it_does_and_gives_an_example(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"])
    assert done.exit_code == 0
    assert f"Example: wsltool {name}" in done.output
    assert COMMANDS[name].help.splitlines()[0].endswith(".")


@every_command
def test_every_option_is_explained(name: str) -> None:
    assert [p.name for p in COMMANDS[name].params if not getattr(p, "help", None)] == []


@every_command
def test_an_unknown_option_is_wrong_usage(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--nonsense"])
    assert done.exit_code == 2
    assert "No such option: --nonsense" in done.output


# What reaches the stage function


@every_command
def test_defaults_are_those_of_the_stage_function(name: str, reaching: Any) -> None:
    signature = inspect.signature(_stage_function(name))
    args, given = reaching(name, f"{'' if name == 'demo' else 'in.zarr'} {MINIMAL.get(name, '')}")
    report = given.pop("report", None)
    assert report is not None or name in ("inspect", "verify")
    for option, value in given.items():
        if option in signature.parameters:
            default = signature.parameters[option].default
            if default is inspect.Parameter.empty or option in MINIMAL.get(name, ""):
                continue
            wanted = list(default) if isinstance(default, tuple) else default
            assert value == (str(wanted) if option == "beam" else wanted), option
        else:
            assert value == COMMON[option], option
    own = {p for p, kind in signature.parameters.items() if kind.kind is kind.KEYWORD_ONLY}
    assert own - {"report"} <= set(given), "an option of the function that the command lacks"
    if name != "demo":
        assert args == (Path("in.zarr"),)


def test_defaults_of_common_options_are_those_of_the_functions() -> None:
    filled = Settings.of({})
    for option in ("output", "overwrite", "limit", "on_bad"):
        assert getattr(filled, option) == COMMON[option]
    assert (filled.shard.index, filled.shard.count) == (0, 1)
    assert set(typing.get_type_hints(RunOptions)) | {"report"} == {
        *list(COMMON)[:5],
        "report",
    }
    assert set(typing.get_type_hints(TorchOptions)) == {*COMMON, "report"}


ROWS_GIVEN = "-o out.h5 --overwrite --shard 1/4 --limit 7 --on-bad skip"
ROWS_REACH: dict[str, Any] = {
    "output": Path("out.h5"),
    "overwrite": True,
    "shard": "1/4",
    "limit": 7,
    "on_bad": "skip",
}
TORCH_GIVEN = "--device cpu --batch-size 5 --workers 3 --precision bf16"
TORCH_REACH = {"device": "cpu", "batch_size": 5, "workers": 3, "precision": "bf16"}

EXACT: list[tuple[str, str, dict[str, Any]]] = [
    (
        "boxes",
        "--rule zhou --threshold .3 --threshold-of range --components all --connectivity 4 "
        "--empty whole --box-score box-mean --fit-threshold v.h5 --fit-truth t.h5 "
        f"--fit-per class:5 --fit-objective voc-ap --fit-step .05 {ROWS_GIVEN}",
        {
            "rule": "zhou",
            "threshold": 0.3,
            "threshold_of": "range",
            "components": "all",
            "connectivity": 4,
            "empty": "whole",
            "box_score": "box-mean",
            "fit_threshold": Path("v.h5"),
            "fit_truth": Path("t.h5"),
            "fit_per": "class:5",
            "fit_objective": "voc-ap",
            "fit_step": 0.05,
            **ROWS_REACH,
        },
    ),
    (
        "beam-search",
        "--model m --weights w.pt --classes all --mode recrop --beam all:4 --levels 3 "
        "--children 9 --map-size 28 --map-dtype float16 --keep-candidates --cooccurrence .1 "
        f"--images pics {TORCH_GIVEN} {ROWS_GIVEN}",
        {
            "model": "m",
            "weights": Path("w.pt"),
            "classes": "all",
            "mode": "recrop",
            "beam": "all:4",
            "levels": 3,
            "children": 9,
            "map_size": 28,
            "map_dtype": "float16",
            "keep_candidates": True,
            "cooccurrence": ".1",
            "images": Path("pics"),
            **TORCH_REACH,
            **ROWS_REACH,
        },
    ),
    (
        "fit-cooccurrence",
        "--model m.safetensors --objective point --alphas .1,.5 --tolerance 0 --point-at region "
        "--truth t.h5 -o w.json",
        {
            "model": Path("m.safetensors"),
            "objective": "point",
            "alphas": [0.1, 0.5],
            "tolerance": 0.0,
            "point_at": "region",
            "truth": Path("t.h5"),
            "output": Path("w.json"),
        },
    ),
    (
        "propose",
        "--mode quality --max-boxes 9 --longest-side 300 --images pics --seed 4 " + ROWS_GIVEN,
        {
            "mode": "quality",
            "max_boxes": 9,
            "longest_side": 300,
            "images": Path("pics"),
            "seed": 4,
            **ROWS_REACH,
        },
    ),
    (
        "rank-boxes",
        "--boxes b.h5 --aggregate contrast --threshold .3 --keep 5 --nms .4 --box-score class "
        f"--same-class {ROWS_GIVEN}",
        {
            "boxes": Path("b.h5"),
            "aggregate": "contrast",
            "threshold": 0.3,
            "keep": 5,
            "nms": 0.4,
            "box_score": "class",
            "same_class": True,
            **ROWS_REACH,
        },
    ),
    (
        "baseline",
        "--prior random --fraction .5 --sigma .1 --grid 3 --like l.h5 --seed 9 " + ROWS_GIVEN,
        {
            "prior": "random",
            "fraction": 0.5,
            "sigma": 0.1,
            "grid": 3,
            "like": Path("l.h5"),
            "seed": 9,
            **ROWS_REACH,
        },
    ),
    (
        "merge",
        f"--how mean --probability softmax {ROWS_GIVEN}",
        {"how": "mean", "probability": "softmax", **ROWS_REACH},
    ),
    (
        "select",
        f"--fraction .5 --ids ids.txt --class cat --not-in other.h5 --seed 3 {ROWS_GIVEN}",
        {
            "fraction": 0.5,
            "ids": Path("ids.txt"),
            "class_": "cat",
            "not_in": Path("other.h5"),
            "seed": 3,
            **ROWS_REACH,
        },
    ),
    (
        "cam",
        "--model m --weights w.pt --classes all --scales .5,1,2 --flip --crops ten "
        "--input-size 64 --fit crop "
        "--scores probability --map-dtype float16 --cooccurrence w.json "
        f"--images pics {TORCH_GIVEN} {ROWS_GIVEN}",
        {
            "model": "m",
            "weights": Path("w.pt"),
            "classes": "all",
            "scales": [0.5, 1.0, 2.0],
            "flip": True,
            "crops": "ten",
            "input_size": 64,
            "fit": "crop",
            "scores": "probability",
            "map_dtype": "float16",
            "cooccurrence": "w.json",
            "images": Path("pics"),
            **TORCH_REACH,
            **ROWS_REACH,
        },
    ),
    (
        "train-cls",
        "--model m --init none --loss softmax-bce --pool lse:2 --count-padding "
        "--masked-pooling inside --freeze features --optimizer sgd --lr .1 --lr-multiplier head=10 "
        "--schedule cosine --weight-decay 0 --epochs 3 --iterations 4 --accumulate 5 "
        "--augment none --input-size 64 --fit warp --suppress a.safetensors "
        "--suppress b.safetensors --suppress-threshold .6 --suppress-threshold .5 "
        "--suppress-layer features --validate v.h5 --validate-every 6 --keep-at 1,20 --cache c "
        "--checkpoint-minutes .5 "
        f"--images pics --seed 4 {TORCH_GIVEN} -o out.safetensors --overwrite --limit 7",
        {
            "model": "m",
            "init": "none",
            "loss": "softmax-bce",
            "pool": "lse:2",
            "count_padding": True,
            "masked_pooling": "inside",
            "freeze": "features",
            "optimizer": "sgd",
            "lr": 0.1,
            "lr_multiplier": "head=10",
            "schedule": "cosine",
            "weight_decay": 0.0,
            "epochs": 3,
            "iterations": 4,
            "accumulate": 5,
            "augment": "none",
            "input_size": 64,
            "fit": "warp",
            "suppress": ["a.safetensors", "b.safetensors"],
            "suppress_threshold": [0.6, 0.5],
            "suppress_layer": "features",
            "validate": Path("v.h5"),
            "validate_every": 6,
            "keep_at": [1, 20],
            "cache": Path("c"),
            "checkpoint_minutes": 0.5,
            "images": Path("pics"),
            "seed": 4,
            **TORCH_REACH,
            "output": Path("out.safetensors"),
            "overwrite": True,
            "limit": 7,
        },
    ),
    (
        "ingest voc",
        f"--split val --classes c.txt --embed {ROWS_GIVEN}",
        {"split": "val", "classes": Path("c.txt"), "embed": True, **ROWS_REACH},
    ),
    (
        "ingest folder",
        f"--labels l.csv --boxes b.csv --classes c.txt --embed {ROWS_GIVEN}",
        {
            "labels": Path("l.csv"),
            "boxes": Path("b.csv"),
            "classes": Path("c.txt"),
            "embed": True,
            **ROWS_REACH,
        },
    ),
    (
        "ingest coco",
        f"--images pics --no-images --no-masks --embed {ROWS_GIVEN}",
        {
            "images": Path("pics"),
            "no_images": True,
            "no_masks": True,
            "embed": True,
            **ROWS_REACH,
        },
    ),
    (
        "ingest cub",
        f"--split train --embed {ROWS_GIVEN}",
        {"split": "train", "embed": True, **ROWS_REACH},
    ),
    (
        "ingest ilsvrc",
        f"--split train --classes c.txt --labels l.txt --blacklist b.txt --embed {ROWS_GIVEN}",
        {
            "split": "train",
            "classes": Path("c.txt"),
            "labels": Path("l.txt"),
            "blacklist": Path("b.txt"),
            "embed": True,
            **ROWS_REACH,
        },
    ),
    *(
        (
            name,
            f"--masks m --images pics --no-images --classes c.txt --embed {ROWS_GIVEN}",
            {
                "masks": Path("m"),
                "images": Path("pics"),
                "no_images": True,
                "classes": Path("c.txt"),
                "embed": True,
                **ROWS_REACH,
            },
        )
        for name in ("ingest openimages", "ingest wsol")
    ),
    (
        "ingest maps",
        "--images i.h5 --classes all --class-score s.npy --score-kind logit --map-dtype float16 "
        + ROWS_GIVEN,
        {
            "images": Path("i.h5"),
            "classes": "all",
            "class_score": Path("s.npy"),
            "score_kind": "logit",
            "map_dtype": "float16",
            **ROWS_REACH,
        },
    ),
    (
        "ingest boxes",
        f"--images i.h5 --form voc --classes c.json {ROWS_GIVEN}",
        {"images": Path("i.h5"), "form": "voc", "classes": Path("c.json"), **ROWS_REACH},
    ),
    ("ingest masks", f"--images i.h5 {ROWS_GIVEN}", {"images": Path("i.h5"), **ROWS_REACH}),
    (
        "export",
        "--form voc-comp --images i.h5 --split val -o results --overwrite",
        {
            "form": "voc-comp",
            "images": Path("i.h5"),
            "split": "val",
            "output": Path("results"),
            "overwrite": True,
        },
    ),
    (
        "extract-features",
        "--model m --weights w.pt --layer conv5_3 --cells all --threshold .3 "
        "--feature-dtype float32 --input-size 64 --fit crop --images pics "
        f"{TORCH_GIVEN} {ROWS_GIVEN}",
        {
            "model": "m",
            "weights": Path("w.pt"),
            "layer": "conv5_3",
            "cells": "all",
            "threshold": 0.3,
            "feature_dtype": "float32",
            "input_size": 64,
            "fit": "crop",
            "images": Path("pics"),
            **TORCH_REACH,
            **ROWS_REACH,
        },
    ),
    (
        "cluster",
        "--eigenvalue-threshold .6 --min-clusters 3 --max-clusters 5 --centroid unit --seed 4 "
        "-o out.h5 --overwrite --shard 1/4",
        {
            "eigenvalue_threshold": 0.6,
            "min_clusters": 3,
            "max_clusters": 5,
            "centroid": "unit",
            "seed": 4,
            "output": Path("out.h5"),
            "overwrite": True,
            "shard": "1/4",
        },
    ),
    (
        "label",
        "--answers a.json --oracle random --oracle-from masks --oracle-rule half --like l.json "
        "--features f.h5 --samples 5 --export page --port 8080 --no-browser --images pics --seed 6 "
        "-o o.json --overwrite",
        {
            "answers": Path("a.json"),
            "oracle": "random",
            "oracle_from": "masks",
            "oracle_rule": "half",
            "like": Path("l.json"),
            "features": Path("f.h5"),
            "samples": 5,
            "export": Path("page"),
            "port": 8080,
            "browser": False,
            "images": Path("pics"),
            "seed": 6,
            "output": Path("o.json"),
            "overwrite": True,
        },
    ),
    (
        "refine",
        "--labels l.json --clusters c.h5 --features f.h5 --model m --weights w.pt "
        f"--unsure suppress --fill zero --images pics {TORCH_GIVEN} {ROWS_GIVEN}",
        {
            "labels": Path("l.json"),
            "clusters": Path("c.h5"),
            "features": Path("f.h5"),
            "model": "m",
            "weights": Path("w.pt"),
            "unsure": "suppress",
            "fill": "zero",
            "images": Path("pics"),
            **TORCH_REACH,
            **ROWS_REACH,
        },
    ),
    (
        "effort",
        "--before b.h5 --clusters c.h5 --labels l.json --truth t.h5 --protocol corloc --iou .3 "
        "--classes bus,car --min-change 2.5 --bootstrap 50 --plot p.png -o o.json --seed 3",
        {
            "before": Path("b.h5"),
            "clusters": Path("c.h5"),
            "labels": Path("l.json"),
            "truth": Path("t.h5"),
            "protocol": "corloc",
            "iou": 0.3,
            "classes": "bus,car",
            "min_change": 2.5,
            "bootstrap": 50,
            "plot": Path("p.png"),
            "output": Path("o.json"),
            "seed": 3,
        },
    ),
    ("convert", "-o o.h5 --overwrite", {"output": Path("o.h5"), "overwrite": True}),
    (
        "score",
        "--protocol voc-ap --protocol gt-known --truth t.h5 --iou .7,.3 --without-skipped "
        "-o o.json --tolerance 3 --metric euclidean --point-at region --confidence cls "
        "--misses fn --pairs per-pair --other n.h5 --classes bus,car --interval .01 "
        "--definition discovery --grid numpy --regions masks --compare c.h5 --runs a.h5 "
        "--runs b.h5 --bootstrap 50 --seed 3 --plot p.png --workers 2 --shard 1/2",
        {
            "protocol": ["voc-ap", "gt-known"],
            "truth": Path("t.h5"),
            "iou": ".7,.3",
            "tolerance": 3.0,
            "metric": "euclidean",
            "point_at": "region",
            "confidence": "cls",
            "misses": "fn",
            "pairs": "per-pair",
            "other": Path("n.h5"),
            "classes": "bus,car",
            "interval": 0.01,
            "definition": "discovery",
            "grid": "numpy",
            "regions": "masks",
            "compare": Path("c.h5"),
            "runs": [Path("a.h5"), Path("b.h5")],
            "bootstrap": 50,
            "seed": 3,
            "without_skipped": True,
            "plot": Path("p.png"),
            "workers": 2,
            "shard": "1/2",
            "output": Path("o.json"),
        },
    ),
    (
        "view",
        "--over a.h5 --over b.h5 --compare c.h5 --before d.h5 --search --labels l.json "
        "--features f.h5 --truth t.h5 --images pics --num 3 --samples 2 -o gallery --overwrite",
        {
            "over": [Path("a.h5"), Path("b.h5")],
            "compare": Path("c.h5"),
            "before": Path("d.h5"),
            "search": True,
            "labels": Path("l.json"),
            "features": Path("f.h5"),
            "truth": Path("t.h5"),
            "images": Path("pics"),
            "num": 3,
            "samples": 2,
            "output": Path("gallery"),
            "overwrite": True,
        },
    ),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), EXACT, ids=[row[0] for row in EXACT])
def test_exactly_these_arguments_reach_the_stage(
    reaching: Any, name: str, arguments: str, expected: dict[str, Any]
) -> None:
    args, given = reaching(name, f"in.zarr {arguments}")
    assert given.pop("report").verbosity == 0
    assert (args, given) == ((Path("in.zarr"),), expected)


def test_merge_takes_several_inputs(reaching: Any) -> None:
    args, given = reaching("merge", "in.zarr b.h5 c.zarr")
    assert given.pop("report").verbosity == 0
    assert args == (Path("in.zarr"), Path("b.h5"), Path("c.zarr"))
    assert given["how"] == "weighted-max"


def test_exactly_these_arguments_reach_the_demo(reaching: Any) -> None:
    args, given = reaching("demo", "-o d --num-train 9 --num-test 8 --epochs 2 --seed 5")
    assert given.pop("report").verbosity == 0
    expected = {"num_train": 9, "num_test": 8, "epochs": 2, "seed": 5}
    assert (args, given) == ((Path("d"),), expected)


def test_layers_of_a_model_are_listed_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[Any] = []

    def stage(*args: Any, **more: Any) -> None:
        reached.extend([args, more])
        raise CalledError

    module = importlib.import_module("wsltool.stages.inspect")
    monkeypatch.setattr(module, "inspect_layers", stage)
    CliRunner().invoke(app, ["inspect", "--layers", "m", "--weights", "w.pt"])
    assert reached == [("m",), {"weights": Path("w.pt")}]


@pytest.mark.parametrize(("flags", "verbosity"), [("-v", 1), ("-q", -1), ("-vv", 2), ("-q -v", 0)])
def test_verbosity_reaches_the_reporter(reaching: Any, flags: str, verbosity: int) -> None:
    _, given = reaching("boxes", f"in.zarr {flags}")
    assert given["report"].verbosity == verbosity


# Refusals

NOT_NUMBERS = [
    ("boxes maps.h5 --threshold nan", "--threshold must be in [0, 1), got nan."),
    ("boxes maps.h5 --threshold 1", "--threshold must be in [0, 1), got 1.0."),
    ("boxes maps.h5 --threshold -0.1", "--threshold must be in [0, 1), got -0.1."),
    ("boxes maps.h5 --rule zhou --threshold .2", "--threshold is not read by --rule zhou, which"),
    ("boxes maps.h5 --fit-per class", "--fit-per is only read with --fit-threshold."),
    ("boxes maps.h5 --fit-objective voc-ap", "--fit-objective is only read with --fit-threshold."),
    ("boxes maps.h5 --fit-step .1", "--fit-step is only read with --fit-threshold."),
    ("boxes maps.h5 --rule zhou --box-score box-mean", "--box-score is not read by --rule zhou,"),
    ("boxes maps.h5 --fit-threshold v.h5 --fit-step 0", "--fit-step must be in [0.001, 0.5], got"),
    ("boxes maps.h5 --connectivity 6", "--connectivity must be 4 or 8, got"),
    ("boxes maps.h5 --limit 0", "--limit must be at least 1, got 0."),
    ("boxes maps.h5 --shard 3/2", '--shard must be I/N with 0 <= I < N, or slurm, got "3/2".'),
    ("baseline in.h5 --fraction nan", "--fraction must be in (0, 1], got nan."),
    ("baseline in.h5 --fraction 0", "--fraction must be in (0, 1], got 0.0."),
    ("baseline in.h5 --sigma nan", "--sigma must be in (0, 100), got nan."),
    ("baseline in.h5 --sigma inf", "--sigma must be in (0, 100), got inf."),
    ("baseline in.h5 --grid 0", "--grid must be in [1, 4096), got 0."),
    ("baseline in.h5 --seed -1", "--seed must be in [0, "),
    ("select in.h5 --fraction nan", "--fraction must be in (0, 1], got nan."),
    ("select in.h5 --fraction 1.1", "--fraction must be in (0, 1], got 1.1."),
    ("select in.h5 --fraction .5 --seed -1", "--seed must be in [0, "),
    ("score b.h5 --protocol gt-known --iou nan", "--iou"),
    ("score b.h5 --protocol gt-known --iou 1.5", "--iou"),
    ("score b.h5 --protocol gt-known --iou .5,x", "--iou must be numbers with commas between, got"),
    ("score b.h5 --protocol gt-known --shard 0/2", "--shard needs -o: the shares meet beside"),
    ("score b.h5 --protocol gt-known --bootstrap 0", "--bootstrap must be in [1, 100000], got 0."),
    ("score b.h5 --protocol pxap --interval 0", "--interval must be in [0.00001, 0.5], got"),
    (
        "score b.h5 --protocol corloc --definition x",
        "--definition must be wsod or discovery or discovery-no-hard, got",
    ),
    (
        "score b.h5 --protocol point --tolerance -1",
        "--tolerance must be at least 0 pixels, got -1.",
    ),
    ("score b.h5 --protocol point --tolerance nan", "--tolerance must be at least 0 pixels, got"),
    ("score b.h5 --protocol point --metric l1", "--metric must be chebyshev or euclidean, got"),
    ("score b.h5 --protocol point --point-at x", "--point-at must be peak or region, got"),
    ("score b.h5 --protocol voc-ap --point-at region", "--point-at region has no meaning for voc-"),
    ("score b.h5 --protocol point --confidence x", "--confidence must be map or cls, got"),
    ("score b.h5 --protocol point --misses x", "--misses must be fp or fn, got"),
    ("score b.h5 --protocol point --classes ,", "--classes must be names with commas between"),
    ("score b.h5 --protocol saliency-ap --pairs x", "--pairs must be pooled or per-pair, got"),
    ("score b.h5 --protocol peak-distance", "--other is missing: peak-distance measures to"),
    ("score b.h5 --protocol voc-ap --tolerance 3", "--tolerance 3.0 has no meaning for voc-ap."),
    ("cam in.h5 --model m --scales nan", "--scales"),
    (
        "cam in.h5 --model m --scales 1,x",
        '--scales must be numbers with commas between, got "1',
    ),
    ("cam in.h5 --model m --scales 0", "--scales"),
    ("cam in.h5 --model m --scales ,", "--scales"),
    ("cam in.h5 --model m --crops ten --flip", "--flip and --crops ten exclude each other:"),
    ("cam in.h5 --model m --batch-size 0", "--batch-size must be in [1, 1048576), got 0."),
    ("cam in.h5 --model m --workers -1", "--workers must be in [0, 1024), got -1."),
    ("cam in.h5 --model m --classes above:nan", "--classes above:P must be in [0, 1), got nan."),
    ("cam in.h5 --model m --input-size 0", "--input-size"),
    (
        "cam in.h5 --model m --device gpu",
        "--device must be auto, cpu, cuda, cuda:N or mps, got",
    ),
    ("cam in.h5", "--model is missing."),
    ("cam in.h5 --model m --cooccurrence nan", "--cooccurrence must be in [0, inf), got nan."),
    ("cam in.h5 --model m --cooccurrence -1", "--cooccurrence must be in [0, inf), got -1.0."),
    (
        "cam in.h5 --model m --cooccurrence w.json",
        "--cooccurrence must be a number or a file that fit-cooccurrence wrote, got",
    ),
    ("beam-search in.h5", "--model is missing."),
    ("beam-search in.h5 --model m --beam 0", "--beam must be a whole number from 1, all, or all:"),
    ("beam-search in.h5 --model m --beam all:0", "--beam must be a whole number from 1, all, or"),
    ("beam-search in.h5 --model m --beam -3", "--beam must be a whole number from 1, all, or all"),
    ("beam-search in.h5 --model m --beam all --mode recrop", "--beam all: crops of crops have no"),
    ("beam-search in.h5 --model m --levels 0", "--levels must be in [1, 100], got 0."),
    ("beam-search in.h5 --model m --children 5", "--children must be 4 or 9, got"),
    ("beam-search in.h5 --model m --map-size 0", "--map-size must be in [1, 1024], got 0."),
    ("beam-search in.h5 --model m --classes above:nan", "--classes above:P must be in [0, 1), got"),
    ("beam-search in.h5 --model m --cooccurrence nan", "--cooccurrence must be in [0, inf), got"),
    ("fit-cooccurrence maps.h5 --alphas nan", "--alphas must be in [0, inf), got nan."),
    ("fit-cooccurrence maps.h5 --alphas -1", "--alphas must be in [0, inf), got -1.0."),
    ("fit-cooccurrence maps.h5 --alphas .1,x", "--alphas must be numbers with commas between, got"),
    ("fit-cooccurrence maps.h5 --tolerance 3", "--tolerance 3.0 has no meaning for cls-map."),
    (
        "fit-cooccurrence maps.h5 --objective point --tolerance nan",
        "--tolerance must be at least 0 pixels, got nan.",
    ),
    (
        "fit-cooccurrence maps.h5 --objective point --point-at x",
        "--point-at must be peak or region, got",
    ),
    ("propose in.h5 --max-boxes 0", "--max-boxes must be in [1, 1048576], got 0."),
    ("propose in.h5 --longest-side 3", "--longest-side must be in [16, 8192], got 3."),
    ("propose in.h5 --seed -1", "--seed must be in [0, "),
    ("rank-boxes maps.h5", "--boxes is missing. Give the boxes to rank: wsltool propose IMAGES"),
    ("rank-boxes maps.h5 --boxes b.h5 --threshold nan", "--threshold must be in [0, 1), got nan."),
    (
        "rank-boxes maps.h5 --boxes b.h5 --aggregate max --threshold .2",
        "--threshold 0.2 is only read with --aggregate sum. Leave it out.",
    ),
    ("rank-boxes maps.h5 --boxes b.h5 --keep 0", "--keep must be in [1, 1048576], got 0."),
    ("rank-boxes maps.h5 --boxes b.h5 --nms nan", "--nms must be in [0, 1], got nan."),
    ("train-cls in.h5 --model small_gap --epochs 0", "--epochs must be in [1, 100000000), got 0."),
    ("train-cls in.h5 --model small_gap --iterations 0", "--iterations must be in [1, 10000"),
    ("train-cls in.h5 --model small_gap --accumulate 0", "--accumulate must be in [1, 1048576"),
    ("train-cls in.h5 --model small_gap --keep-at 0", "--keep-at must be in [1, "),
    (
        "train-cls in.h5 --model small_gap --keep-at 5,x",
        '--keep-at must be whole numbers with commas between, got "5,x".',
    ),
    ("train-cls in.h5 --model small_gap --validate-every 5", "--validate-every needs --validate"),
    ("train-cls in.h5 --model small_gap --checkpoint-minutes nan", "--checkpoint-minutes must be"),
    ("train-cls in.h5 --model small_gap --suppress-threshold .5", "--suppress-threshold and --sup"),
    ("train-cls in.h5 --model small_gap --schedule nonsense", "--schedule nonsense is not underst"),
    ("train-cls in.h5 --model small_gap --augment nonsense", "--augment nonsense: "),
    ("train-cls in.h5 --model small_gap --lr-multiplier head", 'lr_multiplier: "head" is no NAME='),
    (
        "train-cls in.h5 --model small_gap --batch-size 0",
        "--batch-size must be in [1, 1048576), g",
    ),
    ("train-cls in.h5", "--model is missing."),
    ("merge maps.h5", "merge needs two maps stores or more, got 1. Name them all; - stands for"),
    ("merge - -", "- is given 2 times; only one path can come through the pipe."),
    ("merge", "merge needs two maps stores or more, got 0. Name them all; - stands for the one"),
    ("view b.h5 --num -1", "--num"),
    ("view b.h5 --over x.h5 --compare y.h5", "--over and --compare are both given; expected one"),
    ("view b.h5 --samples -1", "--samples"),
    ("view b.h5 --over x.h5 --before y.h5", "--over and --before are both given; expected one of"),
    ("view b.h5 --over x.h5 --search", "--over and --search are both given; expected one of them."),
    ("view b.h5 --labels l.json", "--labels has no meaning for b.h5, whose kind is"),
    ("view b.h5 --features f.h5", "--features has no meaning for b.h5, whose kind is"),
    ("inspect in.h5 --layers m", '--layers lists a model and reads no store, got INPUT "in.h5".'),
    ("inspect in.h5 --weights w.pt", "--weights w.pt is only read with --layers MODEL."),
    ("extract-features in.h5", "--model is missing. Give a model file, a name, or module:fun"),
    ("extract-features in.h5 --weights w.pt", "--weights w.pt needs the name of a network."),
    (
        "extract-features maps.h5 --threshold nan",
        "--threshold must be in [0, 1), got nan.",
    ),
    ("extract-features maps.h5 --threshold 1", "--threshold must be in [0, 1), got 1.0."),
    (
        "extract-features in.h5 --model m --cells firing",
        "in.h5: kind is images, so --cells firing has no maps to read.",
    ),
    ("cluster f.h5 --eigenvalue-threshold nan", "--eigenvalue-threshold must be in [0, 1], got"),
    ("cluster f.h5 --min-clusters 0", "--min-clusters must be in [1, "),
    ("cluster f.h5 --min-clusters 5", "--max-clusters must be in [5, "),
    ("cluster f.h5 --seed -1", "--seed must be in [0, "),
    ("label c.h5 --answers a.json --export d", "--answers and --export exclude each other: labels"),
    ("label c.h5 --oracle random", "--oracle random needs --like LABELS: it marks as many"),
    (
        "label c.h5 --oracle t.h5 --samples 3",
        "--samples is not read by --oracle with a truth, only",
    ),
    ("label c.h5 --oracle-rule half", "--oracle-rule is not read by the page, only by --oracle"),
    ("label c.h5 --answers a.json --no-browser", "--no-browser is not read by --answers, only by"),
    ("label c.h5 --samples 0", "--samples must be in [1, "),
    ("label c.h5 --port -1", "--port must be in [0, 65535], got -1."),
    ("label c.h5 --oracle t.h5 -o labels.txt", "-o labels.txt: labels end in .json."),
    ("refine maps.h5", "--labels is missing. Give the labels.json that wsltool label wrote."),
    ("refine maps.h5 --labels l.json --features f --model m", "--features and --model exclude"),
    ("refine maps.h5 --labels l.json --weights w.pt", "--weights w.pt needs --model, the network"),
    ("effort b.h5 --before b.h5 --clusters c --min-change nan", "--min-change must be in [0, 100]"),
    ("effort b.h5 --before b.h5 --clusters c --bootstrap 0", "--bootstrap must be in [1, 100000]"),
    ("effort b.h5 --before b.h5 --clusters c --protocol pxap", "--protocol pxap has no value for"),
    ("effort b.h5 --before b.h5 --clusters c --plot p.pdf", "--plot p.pdf: a plot is a .png or"),
    ("effort b.h5 --before b.h5 --clusters c --iou nan", "--iou"),
    ("demo --epochs 0", "--epochs must be in [1, 100000), got 0."),
    ("demo --num-train 1", "--num-train must be in [6, 1000000), got 1."),
    ("train-cls in.h5 --model small_gap --lr nan", "--lr"),
    ("train-cls in.h5 --model small_gap --lr 0", "--lr"),
    ("train-cls in.h5 --model small_gap --weight-decay nan", "--weight-decay"),
    ("train-cls in.h5 --model small_gap --input-size -5", "--input-size"),
    ("train-cls in.h5 --model small_gap --seed -1", "--seed"),
    ("demo --seed -1", "--seed"),
]


@pytest.mark.parametrize(
    ("arguments", "line"),
    NOT_NUMBERS,
)
def test_a_number_that_cannot_be_is_wrong_usage_in_one_line(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    line: str,
) -> None:
    import wsltool

    monkeypatch.chdir(folder)
    if "b.h5" in arguments:
        wsltool.baseline("in.h5", output="b.h5")
    before = sorted(file.name for file in folder.iterdir())
    done = CliRunner().invoke(app, arguments.split())
    said = (done.stderr + capfd.readouterr().err).strip()
    assert done.exit_code == 2, said
    assert len(said.splitlines()) == 1
    assert said.startswith(f"wsltool: {line}")
    assert sorted(file.name for file in folder.iterdir()) == before  # refused before any claim


@pytest.mark.parametrize(
    "arguments",
    [
        "boxes maps.h5 --threshold x",
        "boxes maps.h5 --components some",
        "boxes maps.h5 other.h5",
        "cam in.h5 --model m --precision fp8",
        "baseline in.h5 --grid 1.5",
        "merge a.h5 b.h5 --how sum",
        "extract-features maps.h5 --cells some",
        "extract-features maps.h5 --feature-dtype bfloat16",
        "beam-search in.h5 --model m --mode both",
        "beam-search in.h5 --model m --children four",
        "fit-cooccurrence maps.h5 --objective voc-ap",
        "fit-cooccurrence maps.h5 --shard 0/2",
        "propose in.h5 --mode slow",
        "rank-boxes maps.h5 --boxes b.h5 --aggregate median",
        "rank-boxes maps.h5 --boxes b.h5 --box-score mean",
        "cluster f.h5 --centroid median",
        "cluster f.h5 --limit 3",
        "cluster f.h5 --on-bad skip",
        "label c.h5 --oracle-from points",
        "label c.h5 --shard 0/2",
        "refine maps.h5 --labels l.json --fill mean",
        "refine maps.h5 --labels l.json --unsure ask",
        "effort b.h5 --before a.h5",
        "effort b.h5 --clusters c.h5",
        "nonsense",
        "ingest nonsense x",
    ],
)
def test_what_the_parser_refuses_is_wrong_usage(arguments: str) -> None:
    assert CliRunner().invoke(app, arguments.split()).exit_code == 2
