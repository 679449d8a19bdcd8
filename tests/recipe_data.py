"""What the recipes start from, small: three data sets, and files of weights as they are published.

The weights are random numbers in the files, and under the names and shapes, that torchvision
publishes, so that a recipe's ``--init published`` takes the way that it takes with the real ones.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import models as zoo

from tests.example_data import write_ilsvrc_boxes, write_ilsvrc_folder, write_voc_folder
from wsltool.datasets.scenes import draw_scene

__all__ = ["write_recipe_data", "write_weights"]

_COCO_CATEGORIES = {1: "person", 3: "car", 10: "traffic light"}  # COCO's ids have gaps
_COCO_SIZE_WH = (80, 64)


def write_recipe_data(root: Path) -> Path:
    """Fill the folder `root` with small VOC 2012, ILSVRC and COCO 2014; return it."""
    voc = write_voc_folder(root)
    _write_voc_2007(voc)
    _finish_voc(voc)
    write_ilsvrc_folder(root)
    _write_ilsvrc_train(root)
    for place, split in enumerate(("train2014", "val2014")):
        _write_coco(root / "COCO", split, 10 * place)
    _write_caffe_alexnet(root / "caffe-alexnet.safetensors")
    return root


def _write_voc_2007(voc: Path) -> None:
    """Write the same pictures as VOC 2007: ``train`` as ``trainval``, ``val`` as ``test``."""
    shutil.copytree(voc, voc.with_name("VOC2007"))
    main = voc.with_name("VOC2007") / "ImageSets/Main"
    (main / "train.txt").rename(main / "trainval.txt")
    (main / "val.txt").rename(main / "test.txt")


def _finish_voc(voc: Path) -> None:
    """Add the list trainaug, which shares its second image with val as the real one shares most."""
    sets = voc / "ImageSets"
    train = (sets / "Main/train.txt").read_text().split()
    val = (sets / "Main/val.txt").read_text().split()
    names = [train[0], val[1], *train[1:]]
    (sets / "Segmentation/trainaug.txt").write_text("\n".join(names) + "\n")


def _write_ilsvrc_train(root: Path) -> None:
    """Add a picture of each class in a folder of its own, and its box."""
    lines = (root / "LOC_synset_mapping.txt").read_text().splitlines()
    for place, wnid in enumerate(line.split()[0] for line in lines):
        pictures, boxes = (
            root / "ILSVRC" / part / "CLS-LOC/train" / wnid for part in ("Data", "Annotations")
        )
        pictures.mkdir(parents=True)
        boxes.mkdir(parents=True)
        scene = draw_scene(5, place, (64, 56))
        Image.fromarray(scene.picture_HWC).save(pictures / f"{wnid}_1.JPEG", "JPEG")
        write_ilsvrc_boxes(boxes / f"{wnid}_1.xml", wnid, scene.box_xyxy_B4[:1])


def _write_coco(coco: Path, split: str, first: int) -> None:
    """Write scenes as COCO with a crowd, a box beyond the edge, one without area, a bare image."""
    (coco / split).mkdir(parents=True)
    (coco / "annotations").mkdir(exist_ok=True)
    width, height = _COCO_SIZE_WH
    keys = list(range(first + 1, first + 5))
    name = {key: f"COCO_{split}_{key:012d}.jpg" for key in keys}
    for key in keys:
        picture_HWC = draw_scene(9, key, _COCO_SIZE_WH).picture_HWC
        Image.fromarray(picture_HWC).save(coco / split / name[key], "JPEG")
    boxes = [
        (keys[0], 1, [4.5, 6.25, 30.0, 20.0], 0),
        (keys[0], 3, [40.0, 10.0, width - 40 + 0.01, 30.5], 0),
        (keys[1], 10, [2.0, 2.0, 10.0, 25.0], 1),
        (keys[1], 3, [20.0, 20.0, 0.0, 9.0], 0),
        (keys[2], 3, [0.0, 0.0, 50.0, 40.0], 0),
    ]
    content = {
        "images": [
            {"id": key, "file_name": name[key], "width": width, "height": height} for key in keys
        ],
        "categories": [{"id": one, "name": word} for one, word in _COCO_CATEGORIES.items()],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": bbox,
                "iscrowd": crowd,
                "area": bbox[2] * bbox[3],
            }
            for number, (image, category, bbox, crowd) in enumerate(boxes, 1)
        ],
    }
    (coco / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _write_caffe_alexnet(path: Path) -> None:
    """Write random arrays with the names and shapes of Caffe's AlexNet, conv1 to conv5."""
    from safetensors.torch import save_file

    shapes = (96, 3, 11), (256, 48, 5), (384, 256, 3), (384, 192, 3), (256, 192, 3)
    generator = torch.Generator().manual_seed(2)
    state = {}
    for number, (num_out, num_in, size) in enumerate(shapes, start=1):
        shape = (num_out, num_in, size, size)
        state[f"conv{number}.weight"] = 0.01 * torch.randn(shape, generator=generator)
        state[f"conv{number}.bias"] = torch.zeros(num_out)
    save_file(state, path)


def write_weights(home: Path) -> Path:
    """Write the files of ``vgg16``, ``alexnet`` and ``googlenet`` under ``TORCH_HOME``; return it.

    Of ``vgg16`` only the convolutions: no recipe that is run takes its 124 million other numbers.
    """
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    for name, part in (("alexnet", ""), ("vgg16", "features."), ("googlenet", "")):
        with torch.device("meta"):  # shapes alone; googlenet with the auxiliary heads of its file
            options = {"init_weights": False} if name == "googlenet" else {}
            shapes = zoo.get_model(name, weights=None, **options).state_dict()
        state = {n: _random(n, v, generator) for n, v in shapes.items() if n.startswith(part)}
        torch.save(state, folder / Path(zoo.get_model_weights(name).DEFAULT.url).name)
    return home


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return numbers that keep activations at the size of the input."""
    if like.ndim > 1:
        spread = math.sqrt(2 / math.prod(like.shape[1:]))
        return torch.empty(like.shape).normal_(0, spread, generator=generator)
    is_one = ".bn." in name and name.endswith((".weight", ".running_var"))
    return torch.full(like.shape, float(is_one), dtype=like.dtype)
