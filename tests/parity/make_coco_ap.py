"""Let pycocotools and faster-coco-eval score random detections, and keep what they say.

Run by hand, with both installed: ``python -m tests.parity.make_coco_ap``. Writes
``data/coco_ap.json`` (the twelve numbers of every case) and ``data/coco_ap.npz`` (all of
precision and recall of two).
"""

from __future__ import annotations

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faster_coco_eval as faster
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .coco_cases import CASES, WHOLE_CASES, coco_case, coco_objects, fingerprint

FOLDER = Path(__file__).parent / "data"


def evaluated(predicted: Any, truth: Any, coco: Any, evaluator: Any) -> Any:
    """Return the evaluator after its work, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        done = evaluator(*coco_objects(predicted, truth, coco), "bbox")
        done.evaluate()
        done.accumulate()
        done.summarize()
    return done


if __name__ == "__main__":
    said: dict[str, Any] = {
        "versions": {name: version(name) for name in ("pycocotools", "faster-coco-eval", "numpy")},
        "inputs": "tests/parity/coco_cases.py",
        "cases": [],
    }
    whole = {}
    for index, case in enumerate(CASES):
        records = coco_case(case)
        by_coco = evaluated(*records, COCO, COCOeval) if len(records[0].box_score_B) else None
        by_faster = evaluated(*records, faster.COCO, faster.COCOeval_faster) if by_coco else None
        said["cases"].append(
            {
                **case._asdict(),
                "fingerprint": fingerprint(*records),
                "pycocotools": by_coco.stats.tolist() if by_coco else None,
                "faster-coco-eval": np.asarray(by_faster.stats)[:12].tolist()
                if by_faster
                else None,
            }
        )
        if index in WHOLE_CASES:
            whole[f"precision_{index}"] = by_coco.eval["precision"]
            whole[f"recall_{index}"] = by_coco.eval["recall"]
    (FOLDER / "coco_ap.json").write_text(json.dumps(said, indent=1) + "\n")
    np.savez_compressed(FOLDER / "coco_ap.npz", **whole)
