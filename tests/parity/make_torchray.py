"""Play TorchRay's pointing game and keep what it says, in ``data/torchray.json``.

Run by hand, with a checkout of https://github.com/facebookresearch/TorchRay (its ``torchray``
folder is enough) and with pycocotools and matplotlib installed::

    python -m tests.parity.make_torchray PATH_TO_TORCHRAY
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from .torchray_cases import Image, coco_images, voc_images

TARGET = Path(__file__).parent / "data" / "torchray.json"
LETTERS = {1: "+", -1: "-", 0: "0"}


def _point(map_HW: np.ndarray[Any, Any], size_wh: tuple[int, int]) -> torch.Tensor:
    """Return the point as examples/attribution_benchmark.py takes it, of a resized map."""
    saliency = torch.nn.functional.interpolate(
        torch.from_numpy(map_HW)[None, None],
        size_wh[::-1],
        mode="bilinear",
        align_corners=False,
    )
    at = torch.argmax(saliency.view(1, -1), dim=1, keepdim=True)
    return torch.cat((at % size_wh[0], at // size_wh[0]), dim=1)[0]


def _voc_label(image: Image, names: list[str]) -> dict[str, Any]:
    objects = [
        {
            "name": names[one.class_index],
            "difficult": str(int(one.difficult)),
            "bndbox": dict(
                zip(("xmin", "ymin", "xmax", "ymax"), (str(v) for v in one.box), strict=True)
            ),
        }
        for one in image.instances
    ]
    width, height = image.size_wh
    size = {"width": str(width), "height": str(height)}
    return {"annotation": {"filename": "a.jpg", "size": size, "object": objects}}


def _coco(images: list[Image], category_of: dict[int, int]) -> COCO:
    annotations = [
        {
            "id": n + 1,
            "image_id": row,
            "category_id": category_of[one.class_index],
            "iscrowd": int(one.crowd),
            "segmentation": coco_mask.encode(np.asfortranarray(one.mask_HW)),
        }
        for n, (row, one) in enumerate(
            (row, one) for row, image in enumerate(images) for one in image.instances
        )
    ]
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": row, "width": image.size_wh[0], "height": image.size_wh[1]}
            for row, image in enumerate(images)
        ],
        "annotations": annotations,
        "categories": [{"id": one, "name": str(one)} for one in category_of.values()],
    }
    coco.createIndex()
    return coco


def _play(game: Any, images: list[Image], labels: list[Any]) -> dict[str, Any]:
    outcomes, points = [], []
    for image, label in zip(images, labels, strict=True):
        said = ""
        for index, map_HW in image.map_of.items():
            point = _point(map_HW, image.size_wh)
            hit = game.evaluate(label, index, point)
            game.aggregate(hit, index)
            said += LETTERS[hit]
            points.append(point.tolist())
        outcomes.append(said)
    return {
        "outcomes": " ".join(outcomes),
        "points": " ".join(f"{u},{v}" for u, v in points),
        "hits": game.hits.tolist(),
        "misses": game.misses.tolist(),
        "class_accuracies": game.class_accuracies.tolist(),
        "accuracy": game.accuracy.item(),
    }


def main(reference: str) -> None:
    """Play both games, and the distances around the tolerance."""
    sys.path.insert(0, reference)
    warnings.simplefilter("ignore")  # of the reference, which is older than its libraries
    from torchray import __version__
    from torchray.benchmark import datasets
    from torchray.benchmark.pointing_game import PointingGame, PointingGameBenchmark

    voc = torchvision.datasets.VOCDetection.__new__(torchvision.datasets.VOCDetection)
    images = voc_images()
    labels: list[Any] = [_voc_label(image, datasets.VOC_CLASSES) for image in images]
    found = {"voc": _play(PointingGameBenchmark(voc), images, labels)}

    category_of = {index: one for one, index in datasets._COCO_CLASS_TO_INDEX.items()}
    images = coco_images()
    coco = torchvision.datasets.CocoDetection.__new__(torchvision.datasets.CocoDetection)
    coco.coco = _coco(images, category_of)
    labels = [coco.coco.loadAnns(coco.coco.getAnnIds(imgIds=row)) for row in range(len(images))]
    found["coco"] = _play(PointingGameBenchmark(coco), images, labels)

    mask = torch.zeros((40, 40), dtype=torch.bool)
    mask[20, 20] = True
    grid = [[PointingGame(1).evaluate(mask, (u, v)) for u in range(40)] for v in range(40)]
    found["around_one_pixel"] = {"rows": ["".join(LETTERS[one] for one in row) for row in grid]}
    found["made_with"] = {
        "torchray": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "inputs": "tests/parity/torchray_cases.py: voc_images(), coco_images()",
    }
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
