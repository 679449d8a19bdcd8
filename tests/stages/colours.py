"""Pictures of coloured cells, and what the networks of `tiny_networks` make of them."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save_file

from wsltool.nets.architectures import SmallGap
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder

from . import tiny_networks
from .making import arrays, put_picture

ME = tiny_networks.__name__
CLASSES = ["red", "green", "blue"]
HEAD = np.array(tiny_networks.WEIGHTS)
BIAS = np.array(tiny_networks.BIAS)

CPU = {"device": "cpu", "workers": 0}

A = [[[255, 0, 0], [51, 102, 0]], [[0, 0, 255], [0, 0, 0]]]
"""Four cells: red, dim orange, blue, black."""


def by_hand(cells):
    """Maps (class, row, column) and scores of the three colours."""
    colours = np.array(cells) / 255
    maps = np.einsum("kc,rsc->krs", HEAD, colours)
    return maps, maps.mean(axis=(1, 2)) + BIAS


def cells_picture(cells, px=4):
    """A picture of px x px pixels a cell; colours 0 to 255."""
    return np.repeat(np.repeat(np.array(cells, np.uint8), px, axis=0), px, axis=1)


def colour_folder(tmp_path):
    """Five pictures of 8 x 8, a class folder a colour, and the list of classes beside it."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    put_picture(root / "red/a.png", cells_picture(A))
    for name in ("red/b", "green/c", "blue/d", "blue/e"):
        put_picture(root / f"{name}.png", cells_picture(rng.integers(1, 256, (2, 2, 3))))
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    return root


def colour_images(folder):
    """The images store of that folder, ``s.zarr`` beside it."""
    classes = folder.with_name("classes.txt")
    return ingest_folder(folder, classes=classes, output=folder.with_name("s.zarr"))


def made(source, model="colours", **options):
    """Arrays of the maps that one of the tiny networks makes."""
    return arrays(cam(source, model=f"{ME}:{model}", **(CPU | options)))


def small_weights(folder, seed=0):
    """A file of random weights for a small network of three classes."""
    torch.manual_seed(seed)
    path = folder / f"small{seed}.safetensors"
    save_file(SmallGap(3).state_dict(), path)
    return path
