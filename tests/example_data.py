"""What the examples of the documentation start from, small.

Drawn scenes in the layouts of PASCAL VOC and ILSVRC and as a folder a class, networks of random
weights under the names that the examples use, and stores made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import wsltool

_WNIDS = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916")
_NAMES = ("tench", "English springer", "cassette player", "chain saw", "church", "French horn")
_VOC_NAME = {
    "disc": "bus",
    "triangle": "car",
    "square": "cat",
    "star": "dog",
    "cross": "person",
    "train": "train",
}


def write_example_data(root: Path) -> Path:
    """Fill the folder `root`; return it."""
    voc = write_voc_folder(root)
    write_ilsvrc_folder(root)
    _photo_folder(root)
    _model_files(root)
    model = str(root / "models" / "vgg_gap.safetensors")
    val = wsltool.ingest_voc(voc, split="val", output=root / "val.zarr")
    wsltool.ingest_voc(voc, split="train", output=root / "train.zarr")
    maps = wsltool.cam(val, model=model, classes="all", workers=0)
    wsltool.boxes(maps)
    return root


def write_voc_folder(root: Path) -> Path:
    """Write a few scenes as PASCAL VOC 2012, classes named as VOC names them."""
    from wsltool.datasets.scenes import write_scenes

    voc = root / "VOCdevkit" / "VOC2012"
    write_scenes(voc, num_train=12, num_test=8, seed=3)
    for annotation in (voc / "Annotations").glob("*.xml"):
        text = annotation.read_text("utf-8")
        for old, new in _VOC_NAME.items():
            text = text.replace(f"<name>{old}</name>", f"<name>{new}</name>")
        annotation.write_text(text, "utf-8")
    for folder in (voc / "ImageSets" / "Main", voc / "ImageSets" / "Segmentation"):
        (folder / "test.txt").rename(folder / "val.txt")
    (voc / "classes.txt").unlink()
    return voc


def write_ilsvrc_folder(root: Path) -> None:
    """Write scenes in the layout of ILSVRC's validation images, one object a picture."""
    from PIL import Image

    from wsltool.datasets.scenes import draw_scene

    top = root / "ILSVRC"
    pictures, boxes = top / "Data/CLS-LOC/val", top / "Annotations/CLS-LOC/val"
    pictures.mkdir(parents=True)
    boxes.mkdir(parents=True)
    for place in range(6):
        scene = draw_scene(7, place, (64, 56))
        name = f"ILSVRC2012_val_{place + 1:08d}"
        Image.fromarray(scene.picture_HWC).save(pictures / f"{name}.JPEG", "JPEG")
        write_ilsvrc_boxes(boxes / f"{name}.xml", _WNIDS[place], scene.box_xyxy_B4[:1])
    lines = [f"{wnid} {name}, a second name" for wnid, name in zip(_WNIDS, _NAMES, strict=True)]
    (root / "LOC_synset_mapping.txt").write_text("\n".join(lines) + "\n")


def write_ilsvrc_boxes(file: Path, wnid: str, box_xyxy_B4: np.ndarray[Any, Any]) -> None:
    """Write the boxes of a picture as ILSVRC does."""
    objects = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in box_xyxy_B4.astype(int)
    )
    file.write_text(f"<annotation>{objects}</annotation>")


def _photo_folder(root: Path) -> None:
    """Write a folder a class, and boxes as a CSV."""
    from PIL import Image

    from wsltool.datasets.scenes import draw_scene

    lines = ["image,x0,y0,x1,y1"]
    for place in range(12):
        word = ("bee", "wasp")[place % 2]
        scene = draw_scene(11, 6 * place + place % 2, (72, 60))
        image = f"{word}/{place:03d}.jpg"
        (root / "photos" / word).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.picture_HWC).save(root / "photos" / image)
        lines.append(",".join([image, *map(str, scene.box_xyxy_B4[0].astype(int))]))
    (root / "photos.csv").write_text("\n".join(lines) + "\n")
    labels = [f"{line.split(',')[0]},{line.split('/')[0]}" for line in lines[1:]]
    (root / "labels.csv").write_text("\n".join(["image,label", *labels]) + "\n")


def _model_files(root: Path) -> None:
    """Write networks of random weights under the names that the examples use."""
    from wsltool.datasets.voc import VOC_CLASSES
    from wsltool.nets.initial import start_network
    from wsltool.nets.models import Model, save_model
    from wsltool.nets.preprocess import Preprocess

    (root / "models").mkdir()
    for name, arch, names, ids, loss in (
        ("vgg_gap", "vgg_gap", VOC_CLASSES, VOC_CLASSES, "logistic"),
        ("resnet50", "small_gap", _NAMES, _WNIDS, "softmax"),
    ):
        start = start_network(arch, len(names), init="none", seed=1)
        model = Model(
            network=start.network.eval(),
            arch=arch,
            class_name=list(names),
            class_id=list(ids),
            preprocess=Preprocess(48),
            loss=loss,
            fingerprint="",
        )
        save_model(root / "models" / f"{name}.safetensors", model, {})
