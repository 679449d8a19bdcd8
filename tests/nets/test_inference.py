"""From pictures to maps: numbers, bad pictures, workers, repeatability."""

from __future__ import annotations

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.nets.conftest import Files, Squares
from wsltool.errors import ModelError, StoreCorruptError, UsageError, WslError
from wsltool.nets.architectures import SmallGap
from wsltool.nets.cam_network import CamNetwork
from wsltool.nets.closed_form import find_closed_form
from wsltool.nets.compute import computing, parse_device
from wsltool.nets.dataset import RowDataset
from wsltool.nets.inference import CamBatch, run_cams
from wsltool.nets.loading import default_workers
from wsltool.nets.map_grid import map_grid
from wsltool.nets.models import Model, load_model
from wsltool.nets.preprocess import Preprocess

CPU = torch.device("cpu")
BATCHES = [[0, 1, 2], [3, 4], [5]]


def build(module: nn.Module | None = None, preprocess: Preprocess | None = None) -> Model:
    torch.manual_seed(0)
    module = module or SmallGap(3)
    return Model(
        network=CamNetwork(module, find_closed_form(module, "own")),
        arch="own",
        class_name=None,
        class_id=None,
        preprocess=preprocess or Preprocess(64),
        loss="softmax",
        fingerprint="",
    )


def best(rows: Sequence[int], score_NK: NDArray[np.float32]) -> NDArray[np.int64]:
    """The two best classes, then an empty slot."""
    assert len(rows) == len(score_NK)
    order = np.argsort(-score_NK, axis=1, kind="stable")[:, :2]
    return np.concatenate([order, np.full((len(rows), 1), -1)], axis=1)


def run(model: Model, load: Any = None, **options: Any) -> list[CamBatch]:
    batches = options.pop("batches", BATCHES)
    return list(run_cams(model, load or Squares(), batches, best, device=CPU, **options))


def arrays(batches: list[CamBatch]) -> list[NDArray[Any]]:
    return [
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("class_score_NK", "class_NS", "map_NSHW", "extent_N4")
    ]


def equal(a: list[CamBatch], b: list[CamBatch]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(arrays(a), arrays(b), strict=True))


def test_scores_and_maps_by_hand() -> None:
    model = build()
    score_NK, class_NS, map_NSHW, extent_N4 = arrays(run(model))
    assert [a.dtype for a in (score_NK, class_NS, map_NSHW, extent_N4)] == [
        np.float32,
        np.int32,
        np.float32,
        np.float32,
    ]
    assert map_NSHW.shape == (6, 3, 8, 8)
    assert map_grid(model) == (8, 8)
    picture = torch.from_numpy(model.preprocess.apply(Squares()(4))[0])[None]
    with torch.inference_mode():
        wanted_NK = model.network.module(model.preprocess.normalise(picture))
    assert score_NK[4] == pytest.approx(wanted_NK[0].numpy(), abs=1e-5)
    bias_K = model.network.class_bias.detach().numpy()
    for slot in range(2):
        k = class_NS[4, slot]
        assert map_NSHW[4, slot].mean() + bias_K[k] == pytest.approx(score_NK[4, k], abs=1e-5)
    assert (class_NS[:, 2] == -1).all()
    assert not map_NSHW[:, 2].any()
    assert extent_N4.tolist() == [[0, 0, 56, 40]] * 6


def test_same_bytes_with_and_without_workers_and_again(one_thread: object) -> None:
    model = build()
    random_before = torch.get_rng_state()
    first = run(model)
    assert equal(first, run(model))
    assert equal(first, run(model, workers=2))
    assert torch.equal(torch.get_rng_state(), random_before)
    assert [batch.rows for batch in run(model, workers=1)] == BATCHES


def test_a_bad_picture_spoils_nothing_else(one_thread: object) -> None:
    model = build()
    good, bad = arrays(run(model)), run(model, Squares(bad_rows=(1, 5)))
    assert [text for batch in bad for text in batch.error] == [
        None,
        "JPEG is truncated at byte 1.",
        None,
        None,
        None,
        "JPEG is truncated at byte 5.",
    ]
    for first, second in zip(good, arrays(bad), strict=True):
        rows = [0, 2, 3, 4]
        assert first[rows].tobytes() == second[rows].tobytes()
    score_NK, class_NS, map_NSHW, extent_N4 = arrays(bad)
    assert np.isneginf(score_NK[[1, 5]]).all()
    assert (class_NS[[1, 5]] == -1).all()
    assert not map_NSHW[[1, 5]].any()
    assert not extent_N4[[1, 5]].any()


class Poisoned(SmallGap):
    """Gives NaN for pictures whose first pixel is black in all colours."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        poison_N = torch.where(x_NCHW[:, :, 0, 0].amax(1) < -1.7, torch.nan, 0.0)
        return super().forward(x_NCHW + poison_N[:, None, None, None])


def dark(row: int) -> NDArray[np.uint8]:
    picture_HWC = np.full((32, 32, 3), 90, np.uint8)
    return picture_HWC * (row != 2)


def test_output_that_is_not_finite() -> None:
    batches = run(build(Poisoned(3)), dark)
    assert [text for batch in batches for text in batch.error] == [
        None,
        None,
        "the network's output is not finite (NaN or infinity).",
        None,
        None,
        None,
    ]
    assert np.isfinite(np.delete(arrays(batches)[0], 2, axis=0)).all()


def test_flip_is_the_mean_of_both() -> None:
    model = build()
    both = arrays(run(model, flip=True))

    def mirrored(row: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(Squares()(row)[:, ::-1])

    classes = both[1]

    def same(rows: Sequence[int], _score_NK: NDArray[np.float32]) -> NDArray[np.int32]:
        return classes[list(rows)]

    plain, other = (
        arrays(list(run_cams(model, load, BATCHES, same, device=CPU)))
        for load in (Squares(), mirrored)
    )
    assert both[0] == pytest.approx((plain[0] + other[0]) / 2, abs=1e-5)
    assert both[2] == pytest.approx((plain[2] + other[2][..., ::-1]) / 2, abs=1e-5)


def test_scales_are_the_maximum_on_the_finest_grid() -> None:
    model = build()
    merged = arrays(run(model, scales=(0.5, 1.0, 1.5)))
    assert merged[2].shape == (6, 3, 12, 12)
    assert map_grid(model, 1.5) == (12, 12)
    classes = merged[1]

    def same(rows: Sequence[int], _score_NK: NDArray[np.float32]) -> NDArray[np.int32]:
        return classes[list(rows)]

    single = [
        arrays(list(run_cams(model, Squares(), BATCHES, same, scales=(s,), device=CPU)))
        for s in (0.5, 1.0, 1.5)
    ]
    assert merged[0] == pytest.approx(np.mean([one[0] for one in single], axis=0), abs=1e-5)
    upsampled = [
        nn.functional.interpolate(torch.from_numpy(one[2]), (12, 12), mode="bilinear").numpy()
        for one in single
    ]
    assert merged[2] == pytest.approx(np.max(upsampled, axis=0), abs=1e-5)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), r"--scales must be numbers above 0, got \[\]"),
        ((1.0, -1.0), r"got \[1.0, -1.0\]"),
        ((float("nan"),), r"got \[nan\]"),
    ],
)
def test_impossible_scales(scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(build(), scales=scales)


def test_input_that_the_network_cannot_take() -> None:
    model = build()
    model.network.module.register_forward_pre_hook(_too_small)
    with pytest.raises(ModelError, match=r"^own on 3 pictures of 1x1: failed \(Output size is"):
        run(model, scales=(1.0, 1 / 64))


def _too_small(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
    if args[0].shape[2] < 2:
        raise RuntimeError("Output size is too small")


def broken(row: int) -> NDArray[np.uint8]:
    raise StoreCorruptError(f"val.zarr: byte chunk {row} is damaged.")


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_come_through_as_they_are(workers: int) -> None:
    with pytest.raises(StoreCorruptError, match=r"^val.zarr: byte chunk 0 is damaged.$"):
        run(build(), broken, workers=workers)


def suicidal(row: int) -> NDArray[np.uint8]:
    if row == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Squares()(row)


def test_a_worker_that_is_killed() -> None:
    with pytest.raises(
        WslError, match=r"a process that reads pictures has died \(DataLoader worker .*--workers"
    ) as caught:
        run(build(), suicidal, workers=1)
    assert "\n" not in str(caught.value)


CHILD = """
import sys, time
import torch
from tests.nets.conftest import Squares
from tests.nets.test_inference import best, build, run_cams
def slow(row):
    import os
    os.write(1, b"%d\\n" % os.getpid())  # at once, so that two workers do not mix
    time.sleep(60 if row > 3 else 0)
    return Squares()(row)
if __name__ == "__main__":
    for batch in run_cams(build(), slow, [[i] for i in range(9)], best,
                          device=torch.device("cpu"), workers=2):
        pass
"""


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            assert child.stdout is not None
            workers = {int(child.stdout.readline()) for _ in range(4)}
            for pid in workers:  # they leave this to their parent
                os.kill(pid, signal.SIGINT)
            time.sleep(0.3)
            assert all(alive(pid) for pid in workers)
        finally:
            child.kill()
    deadline = time.monotonic() + 2
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in workers)


def test_workers_end_when_the_reader_stops_early() -> None:
    import multiprocessing

    batches = run_cams(
        build(), Squares(), [[row] for row in range(50)], best, device=CPU, workers=2
    )
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []
    with pytest.raises(StoreCorruptError) as caught:  # whose traceback is kept
        run(build(), broken, workers=2)
    assert multiprocessing.active_children() == []
    assert caught.match("byte chunk 0")


def test_precisions_agree_roughly() -> None:
    model = build()
    exact = arrays(run(model))[0]
    assert arrays(run(model, precision="tf32"))[0].tobytes() == exact.tobytes()
    for precision in ("bf16", "fp16"):
        halved = run(model, precision=precision)
        assert halved[0].map_NSHW.dtype == np.float32
        assert arrays(halved)[0] == pytest.approx(exact, abs=0.05 * float(np.abs(exact).max()))
    with pytest.raises(UsageError, match=r'--precision must be one of .*, got "int8"'):
        run(model, precision="int8")
    assert torch.backends.cudnn.allow_tf32


def test_settings_are_put_back() -> None:
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    with computing(CPU, "float32"):
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", '--device must be auto, cpu, cuda, cuda:N or mps, got "gpu"'),
        ("cuda:x", 'got "cuda:x"'),
        ("cpu:1", 'got "cpu:1"'),
        ("", 'got ""'),
        ("cuda:99", r"--device cuda:99: this machine has \d+ CUDA devices"),
    ],
)
def test_devices_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_device(text)


def test_devices() -> None:
    assert parse_device("cpu") == CPU
    assert parse_device("auto").type in ("cpu", "cuda", "mps")
    assert default_workers(CPU) >= 0


class Rows:
    """Three rows of a store."""

    def __len__(self) -> int:
        return 3

    def row(self, row: int) -> dict[str, NDArray[Any]]:
        return {"label": np.array([row, row + 1], np.uint8), "name": np.array(f"row {row}")}


def test_rows_as_a_data_set() -> None:
    data = pickle.loads(pickle.dumps(RowDataset(Rows())))
    assert [int(item["label"][0]) for item in data] == [0, 1, 2]
    assert str(data[-1]["name"]) == "row 2"
    with pytest.raises(IndexError, match="row 3 is not among the 3 rows"):
        data[3]
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=1)
    assert [str(item["name"]) for item in loader] == ["row 0", "row 1", "row 2"]


@pytest.mark.real
def test_squeezenet_gives_the_recorded_classes(data_dir: Path) -> None:
    model = load_model("squeezenet1_0", weights=data_dir / "weights" / "squeezenet1_0.safetensors")
    crop = replace(model.preprocess, size=227, resize=256, squash=True, fit="crop")
    model.preprocess = crop
    with (data_dir / "weights" / "check-images.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    files = Files(tuple(data_dir / "weights" / "check-images" / row["file"] for row in table))
    batches = [list(range(start, start + 8)) for start in range(0, len(table), 8)]
    score_NK = arrays(run(model, files, batches=batches))[0]
    wanted = [[int(row[f"top{place}"]) for place in range(1, 6)] for row in table]
    assert np.argsort(-score_NK, axis=1)[:, :5].tolist() == wanted


@pytest.mark.real
def test_peaks_lie_in_the_boxes(data_dir: Path) -> None:
    """Every sixth of the ILSVRC images; on all 300 it is 91.0 % at top-5 90.7 %."""
    folder = data_dir / "imagenette"
    lines = (folder / "classes.txt").read_text().splitlines()
    index = {line.split()[0]: int(line.split()[1]) for line in lines}
    metadata = folder / "metadata" / "test"
    names = (metadata / "image_ids.txt").read_text().split()[::6]
    boxes: dict[str, list[list[float]]] = {}
    for line in (metadata / "localization.txt").read_text().split():
        name, *box = line.split(",")
        boxes.setdefault(name, []).append([float(number) for number in box])
    true_N = np.array([index[name.split("/")[1]] for name in names])

    def own(rows: Sequence[int], _score_NK: NDArray[np.float32]) -> NDArray[np.int64]:
        return true_N[list(rows), None]

    model = load_model("efficientnet_lite0")
    model.preprocess = model.preprocess.at(320)
    files = Files(tuple(folder / name for name in names))
    batches = [list(range(start, start + 10)) for start in range(0, len(names), 10)]
    score_NK, _, map_NSHW, _ = arrays(list(run_cams(model, files, batches, own, device=CPU)))
    assert (np.argsort(-score_NK, axis=1)[:, :5] == true_N[:, None]).any(1).mean() >= 0.85
    hits = 0
    for name, map_HW in zip(names, map_NSHW[:, 0], strict=True):
        row, column = np.unravel_index(int(map_HW.argmax()), map_HW.shape)
        x, y = (column + 0.5) * 22.4, (row + 0.5) * 22.4
        hits += any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes[name])
    assert hits / len(names) >= 0.85
