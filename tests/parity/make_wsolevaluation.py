"""Run wsolevaluation's evaluators and freeze what they count.

    python -m tests.parity.make_wsolevaluation PATH_TO_REFERENCE PATH_TO_METADATA

The reference is a checkout of clovaai/wsolevaluation (its five files evaluation.py, inference.py,
util.py, data_loaders.py, config.py are enough), the metadata the folder with ``CUB/test``,
``OpenImages/val`` and ``OpenImages/masks``. Writes ``data/wsolevaluation.npz``; takes some
minutes. The heat maps are those of ``wsolevaluation_cases``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
import types
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

from tests.parity.wsolevaluation_cases import generated_heat

OUT = Path(__file__).parent / "data" / "wsolevaluation.npz"
IOUS = [30, 50, 70]
TENTH = 10


class _Munch(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


def imported_reference(path):
    """Import the evaluator with a stand-in for munch; it wants numpy's old name of float, too."""
    munch = types.ModuleType("munch")
    munch.Munch = _Munch
    sys.modules["munch"] = munch
    sys.path.insert(0, str(path))
    with warnings.catch_warnings():  # of escapes in its docstrings
        warnings.simplefilter("ignore")
        return importlib.import_module("evaluation")


def _boxes(evaluation, folder, step, every):
    """Return how many images are right at each IoU and threshold, of V1 and V2."""
    counted = []
    for multi in (False, True):
        evaluator = evaluation.BoxEvaluator(
            metadata=evaluation.configure_metadata(str(folder)),
            dataset_name="CUB",
            split="test",
            cam_threshold_list=list(np.arange(0, 1, step)),
            iou_threshold_list=IOUS,
            mask_root="",
            multi_contour_eval=multi,
        )
        for index in range(0, len(evaluator.image_ids), every):
            evaluator.accumulate(generated_heat(index), evaluator.image_ids[index])
        counted.append([evaluator.num_correct[iou] for iou in IOUS])
    return np.array(counted, np.int32)


def _pixels(evaluation, data, step):
    """Return both histograms and PxAP, of the images whose masks are there."""
    masks = data / "OpenImages" / "masks"
    lines = (data / "OpenImages" / "val" / "localization.txt").read_text().splitlines()
    lines = [line for line in lines if (masks / line.split(",")[1]).is_file()]
    names = list(dict.fromkeys(line.split(",")[0] for line in lines))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "localization.txt").write_text("\n".join(lines) + "\n")
        evaluator = evaluation.MaskEvaluator(
            metadata=evaluation.configure_metadata(folder),
            dataset_name="OpenImages",
            split="val",
            cam_threshold_list=list(np.arange(0, 1, step)),
            iou_threshold_list=IOUS,
            mask_root=str(masks),
            multi_contour_eval=False,
        )
        for index, name in enumerate(names):
            evaluator.accumulate(generated_heat(index), name)
    with contextlib.redirect_stdout(io.StringIO()):
        value = evaluator.compute()
    counted = [evaluator.gt_true_score_hist, evaluator.gt_false_score_hist]
    return names, np.array(counted, np.int64), value


def main():
    reference, data = (Path(one) for one in sys.argv[1:3])
    np.float = float
    evaluation = imported_reference(reference)
    cub = data / "CUB" / "test"
    frozen = {
        "boxes_tenth_0.01": _boxes(evaluation, cub, 0.01, TENTH),
        "boxes_tenth_0.001": _boxes(evaluation, cub, 0.001, TENTH),
        "boxes_all_0.01": _boxes(evaluation, cub, 0.01, 1),
    }
    for step in (0.01, 0.001):
        names, pixels, value = _pixels(evaluation, data, step)
        frozen |= {f"pixels_{step:g}": pixels, f"pxap_{step:g}": np.array(value)}
    about = {
        "reference": "clovaai/wsolevaluation 96f4b88679af41f005824661f47e6fe3628af2aa",
        "made by": "tests/parity/make_wsolevaluation.py",
        "inputs": "CUB test boxes, OpenImages val masks; tests/parity/wsolevaluation_cases.py",
        "opencv": metadata.version("opencv-python-headless"),
        "numpy": np.__version__,
        "images with masks": names,
        "axes of boxes": "V1 and V2; IoU 30, 50, 70; threshold; every 10th image, or all",
    }
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, about=json.dumps(about), **frozen)


if __name__ == "__main__":
    main()
