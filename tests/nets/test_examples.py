"""What training shows: the right pixels, boxes and insides, however the epoch is divided."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.nets.conftest import Files, Squares
from wsltool.datasets.voc import open_voc
from wsltool.errors import BadImageError, ModelError, TrainingError, WslError
from wsltool.nets.augment import Augment
from wsltool.nets.examples import Batch, Examples, picture_batches
from wsltool.nets.preprocess import Fit, Preprocess
from wsltool.nets.sampling import Draw, epoch_batches, ordered_batches

EVERYTHING = Augment.parse("crop,scale=.7:1.4,rotate=30,noise=10")


@dataclass(frozen=True)
class Same:
    """The same picture, or boxes, for every row."""

    value: Any

    def __call__(self, _row: int) -> Any:
        return self.value


def shown(examples: Examples, *draws: Draw, epoch: int = 0) -> Batch:
    (batch,) = picture_batches(examples, [draws], epoch, workers=0)
    return batch


def examples_of(
    picture_HWC: NDArray[np.uint8], augment: str = "none", box: Any = None, **preprocess: Any
) -> Examples:
    boxes = None if box is None else Same((np.array(box, float), np.arange(len(box))))
    return Examples(
        Same(picture_HWC), [0], Preprocess(**preprocess), Augment.parse(augment), 0, boxes
    )


def test_plain_is_the_preprocessing_alone() -> None:
    preprocess = Preprocess(24, fit="letterbox")
    examples = Examples(Squares(), [5, 3, 8], preprocess, EVERYTHING, 0).plain()
    (batch,) = picture_batches(examples, ordered_batches(3, 4), 0, workers=0)
    assert batch.place_N == [0, 1, 2]
    assert batch.input_NCHW.dtype == torch.uint8
    wanted = [preprocess.apply(Squares()(row))[0] for row in (5, 3, 8)]
    assert np.array_equal(batch.input_NCHW.numpy(), wanted)
    assert batch.inside_N4.dtype == torch.float32
    # 56 x 40 becomes 24 x 17: 3 rows above and 4 below
    assert batch.inside_N4.tolist() == [pytest.approx([0, 3 / 24, 1, 20 / 24])] * 3
    assert batch.boxes is None


def test_mirror_and_scale_by_hand() -> None:
    """A 4 x 2 picture on 8 x 8: it fills rows 2 to 5; a box is its right lower quarter."""
    picture_HWC = np.zeros((2, 4, 3), np.uint8)
    picture_HWC[1, 2:] = 200
    examples = examples_of(picture_HWC, box=[[2, 1, 4, 2]], size=8, fit="letterbox")
    plain, mirrored = shown(examples, Draw(0, 0)), shown(examples, Draw(0, 0, True))
    assert torch.equal(mirrored.input_NCHW, plain.input_NCHW.flip(3))
    assert plain.input_NCHW[0, 0, 5].tolist()[-3:] == [200, 200, 200]
    assert plain.inside_N4.tolist() == mirrored.inside_N4.tolist() == [[0, 0.25, 1, 0.75]]
    assert plain.boxes is not None
    assert mirrored.boxes is not None
    assert plain.boxes[0][0].tolist() == [[0.5, 0.5, 1, 0.75]]
    assert mirrored.boxes[0][0].tolist() == [[0, 0.5, 0.5, 0.75]]
    double = shown(examples, Draw(0, 0, False, 2.0))
    assert double.input_NCHW.shape == (1, 3, 16, 16)
    assert double.boxes is not None
    assert double.boxes[0][0].tolist() == [[0.5, 0.5, 1, 0.75]]


def test_uneven_border_is_mirrored_too() -> None:
    """3 columns on 8: 2 free at the left, 3 at the right."""
    examples = examples_of(np.full((8, 3, 3), 9, np.uint8), size=8, fit="letterbox")
    assert shown(examples, Draw(0, 0)).inside_N4.tolist() == [[2 / 8, 0, 5 / 8, 1]]
    flipped = shown(examples, Draw(0, 0, True))
    assert flipped.inside_N4.tolist() == [[3 / 8, 0, 6 / 8, 1]]
    assert (flipped.input_NCHW[0, 0, 0] == 9).tolist() == [False] * 3 + [True] * 3 + [False] * 2


def test_boxes_are_clipped_or_left_out() -> None:
    """The centre 4 x 4 of a picture 8 wide and 4 high: columns 2 to 5."""
    box = [[0, 0, 3, 2], [0, 0, 2, 4], [6, 1, 8, 2], [3, 1, 3, 2], [-9, -9, 99, 99]]
    batch = shown(
        examples_of(np.zeros((4, 8, 3), np.uint8), box=box, size=4, fit="crop"), Draw(0, 0)
    )
    assert batch.boxes is not None
    assert batch.boxes[0][0].tolist() == [[0, 0, 0.25, 0.5], [0, 0, 1, 1]]
    assert batch.boxes[0][1].tolist() == [0, 4]
    none = examples_of(np.zeros((4, 8, 3), np.uint8), box=np.zeros((0, 4)), size=4)
    assert shown(none, Draw(0, 0)).boxes[0][0].shape == (0, 4)  # type: ignore[index]


def marked(width: int, height: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A dark picture, its box white."""
    picture_HWC = np.full((height, width, 3), 40, np.uint8)
    x0, y0, x1, y1 = box
    picture_HWC[y0:y1, x0:x1] = 255
    return picture_HWC


@settings(max_examples=60)
@given(
    st.tuples(st.integers(60, 300), st.integers(60, 300)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from(["warp", "crop", "letterbox"]),
    st.booleans(),
    st.floats(0.7, 1.4),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_boxes_and_insides_lie_where_the_pixels_do(
    size: tuple[int, int],
    where: tuple[float, float, float, float],
    fit: Fit,
    mirrored: bool,
    scale: float,
    crop_area: float,
    position: int,
) -> None:
    """White pixels and the box agree to two input pixels, whatever was changed."""
    width, height = size
    left, top = int(where[0] * (width - 20)), int(where[1] * (height - 20))
    right = left + 20 + int(where[2] * (width - left - 20))
    bottom = top + 20 + int(where[3] * (height - top - 20))
    box = (left, top, right, bottom)
    preprocess = Preprocess(64, fit=fit, mean=(0.0, 0.0, 0.0))
    examples = Examples(
        Same(marked(width, height, box)),
        [0],
        preprocess,
        Augment(crop_area=crop_area),
        0,
        Same((np.array([box], float), np.array([7]))),
    )
    batch = shown(examples, Draw(0, position, mirrored, scale))
    grey_HW = batch.input_NCHW[0, 0].numpy()
    side_px = len(grey_HW)
    assert side_px == preprocess.scaled(scale).size_px
    found = bounds(grey_HW > 150)
    assert batch.boxes is not None
    (box_B4, class_B) = batch.boxes[0]
    assert bounds(grey_HW > 20) == pytest.approx(
        (batch.inside_N4[0].numpy() * side_px).tolist(), abs=1e-4
    )
    if not len(box_B4):
        assert found is None
        return
    assert class_B.tolist() == [7]
    assert ((box_B4 >= 0) & (box_B4 <= 1)).all()
    if found is not None:
        assert found == pytest.approx((box_B4[0] * side_px).tolist(), abs=2)
    else:
        assert ((box_B4[0, 2:] - box_B4[0, :2]) * side_px).min() < 2


def bounds(is_on_HW: NDArray[np.bool_]) -> list[float] | None:
    rows, cols = np.nonzero(is_on_HW)
    if not len(rows):
        return None
    return [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


def test_box_outside_the_crop_is_not_in_the_border() -> None:
    """A crop of a corner, letterboxed: the box beyond its edge would fall into the border."""
    examples = examples_of(
        np.zeros((400, 40, 3), np.uint8), "crop=.001", [[0, 0, 40, 400]], size=64, fit="letterbox"
    )
    for position in range(20):
        batch = shown(examples, Draw(0, position))
        assert batch.boxes is not None
        assert batch.boxes[0][0][0] == pytest.approx(batch.inside_N4[0].numpy(), abs=1e-6)


def test_crops_have_the_area_and_proportions_promised() -> None:
    """Columns are written in red and rows in green, so a crop tells what it shows."""
    share, stretch = [], []
    picture_HWC = np.zeros((900, 900, 3), np.uint8)
    picture_HWC[..., 0] = (np.arange(900) // 4)[None, :]
    picture_HWC[..., 1] = (np.arange(900) // 4)[:, None]
    examples = examples_of(picture_HWC, "crop=.5", size=64)
    for position in range(300):
        red, green, _ = shown(examples, Draw(0, position)).input_NCHW[0].numpy().astype(int)
        width, height = int(np.ptp(red)) * 4 / 900, int(np.ptp(green)) * 4 / 900
        share.append(width * height)
        stretch.append(width / height)
    assert 0.47 < min(share) < 0.55 < 0.9 < max(share) <= 1
    assert 0.73 < min(stretch) < 0.8 < 1.25 < max(stretch) < 1.37


def test_rotation_fills_with_the_mean_colour_and_keeps_the_centre() -> None:
    picture_HWC = marked(101, 101, (40, 40, 61, 61))
    examples = examples_of(picture_HWC, "rotate=45", size=101, mean=(1.0, 0.0, 0.5))
    seen = set()
    for position in range(30):
        input_CHW = shown(examples, Draw(0, position)).input_NCHW[0].numpy()
        assert input_CHW[:, 50, 50].tolist() == [255, 255, 255]
        filled_HW = (input_CHW == np.array([255, 0, 128])[:, None, None]).all(axis=0)
        is_picture_HW = (input_CHW[0] == input_CHW[1]) & (input_CHW[1] == input_CHW[2])
        assert (filled_HW | is_picture_HW).all()
        row, col = np.argwhere(input_CHW[1] > 150).mean(axis=0)
        assert (row, col) == pytest.approx((50, 50), abs=0.3)
        seen.add(int(filled_HW.sum()))
    assert len(seen) > 20


def test_noise_is_white_gaussian_and_clipped() -> None:
    grey = examples_of(np.full((8, 8, 3), 128, np.uint8), "noise=10", size=200)
    noise_CHW = shown(grey, Draw(0, 0)).input_NCHW[0].numpy() - 128.0
    assert noise_CHW.mean() == pytest.approx(0, abs=0.15)
    assert noise_CHW.std() == pytest.approx(10, abs=0.15)
    assert (np.abs(noise_CHW) < 10).mean() == pytest.approx(0.683 - 0.02, abs=0.02)
    for axis in (0, 1, 2):
        rolled = np.roll(noise_CHW, 1, axis)
        assert (noise_CHW * rolled).mean() == pytest.approx(0, abs=1.5)
    white = examples_of(np.full((8, 8, 3), 255, np.uint8), "noise=10", size=200)
    assert (shown(white, Draw(0, 0)).input_NCHW == 255).float().mean() == pytest.approx(
        0.52, abs=0.02
    )


def by_position(examples: Examples, batches: list[list[Draw]], workers: int) -> dict[int, bytes]:
    found = {}
    shown_batches = picture_batches(examples, batches, 3, workers=workers)
    for draws, batch in zip(batches, shown_batches, strict=True):
        assert batch.place_N == [draw.place for draw in draws]
        for i, draw in enumerate(draws):
            parts = [batch.input_NCHW[i].numpy().tobytes(), batch.inside_N4[i].numpy().tobytes()]
            if batch.boxes is not None:
                parts += [array.tobytes() for array in batch.boxes[i]]
            found[draw.position] = b"".join(parts)
    return found


def square_boxes(row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.array([[row, 2.0, 30.0, 40.0]]), np.array([row % 2])


@pytest.mark.parametrize("with_boxes", [False, True])
def test_any_division_shows_the_same_bytes(with_boxes: bool) -> None:
    """One process, two workers, halves of each batch, the rest of an epoch: the same."""
    augment = replace(EVERYTHING, rotate_deg=0.0) if with_boxes else EVERYTHING
    boxes = square_boxes if with_boxes else None
    examples = Examples(Squares(), list(range(12)), Preprocess(32), augment, 5, boxes)
    batches = epoch_batches(12, 4, 5, 3, augment)
    whole = by_position(examples, batches, 0)
    assert len(set(whole.values())) == 12
    assert by_position(pickle.loads(pickle.dumps(examples)), batches, 2) == whole
    halves = [by_position(examples, [b[start::2] for b in batches], 0) for start in (0, 1)]
    assert halves[0] | halves[1] == whole
    rest = by_position(examples, batches[1:], 0)
    assert rest == {position: whole[position] for position in range(4, 12)}
    other = by_position(replace(examples, seed=6), batches, 0)
    assert not set(other.values()) & set(whole.values())


def test_epochs_and_repeated_places_differ() -> None:
    examples = Examples(Squares(), [1], Preprocess(32), EVERYTHING, 0)
    twice = shown(examples, Draw(0, 0), Draw(0, 1)).input_NCHW
    assert not torch.equal(twice[0], twice[1])
    assert not torch.equal(twice[0], shown(examples, Draw(0, 0), epoch=1).input_NCHW[0])


def test_a_wide_picture_can_be_one_pixel() -> None:
    for shape in ((1, 1, 3), (1, 900, 3), (900, 1, 3)):
        examples = examples_of(np.full(shape, 77, np.uint8), "crop=.01,rotate=10", size=16)
        assert shown(examples, Draw(0, 0)).input_NCHW.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_picture_is_named(workers: int) -> None:
    examples = Examples(Squares(bad_rows=(7,)), [5, 7], Preprocess(16), EVERYTHING, 0)
    with pytest.raises(BadImageError, match=r"^row 7: JPEG is truncated at byte 7\.$") as caught:
        list(picture_batches(examples, [[Draw(0, 0), Draw(1, 1)]], 0, workers=workers))
    assert caught.value.__cause__ is None


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_batches_are_the_same(workers: int) -> None:
    examples = Examples(Squares(), [0, 1], Preprocess(16), Augment(), 0, square_boxes)
    draws = [[Draw(0, 0), Draw(1, 1, True)]]
    (plain,) = picture_batches(examples, draws, 0, workers=0)
    (pinned,) = picture_batches(examples, draws, 0, workers=workers, pin=True)
    for own, other in zip(pinned[1:3], plain[1:3], strict=True):
        assert own.is_pinned()
        assert torch.equal(own, other)
    assert repr(pinned.boxes) == repr(plain.boxes)


class Gone:
    """A store that was moved away meanwhile."""

    def __call__(self, _row: int) -> NDArray[np.uint8]:
        raise WslError(f"process {os.getpid()}: it is gone.")


@pytest.mark.parametrize("workers", [0, 1])
def test_other_known_failures_come_as_they_are(workers: int) -> None:
    examples = Examples(Gone(), [5], Preprocess(16), Augment(), 0)
    with pytest.raises(WslError, match=r"^process \d+: it is gone\.$") as caught:
        list(picture_batches(examples, [[Draw(0, 0)]], 0, workers=workers))
    assert (f"process {os.getpid()}:" in str(caught.value)) == (workers == 0)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"row 0: the picture is uint8 \(4, 4\), expected uint8 \(row"),
        (np.zeros((4, 4, 3)), r"row 0: the picture is float64 \(4, 4, 3\), expected uint8"),
        (np.zeros((4, 0, 3), np.uint8), r"row 0: the picture is uint8 \(4, 0, 3\), expected"),
        (np.zeros(4, np.uint8), r"row 0: the picture is uint8 \(4,\), expected uint8"),
    ],
)
def test_what_is_no_picture(picture: Any, message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        shown(examples_of(picture, "crop,rotate=3", size=8), Draw(0, 0))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (([[0, 0, np.nan, 1]], [0]), r"^row 0: a box is \[0.0, 0.0, nan, 1.0\], expected finite"),
        (([[0, 0, 1, 1]], [0, 1]), r"^row 0: boxes are \(1, 4\) with classes \(2,\), expected"),
        (([0, 0, 1, 1], [0]), r"^row 0: boxes are \(4,\) with classes \(1,\), expected"),
    ],
)
def test_what_are_no_boxes(boxes: Any, message: str) -> None:
    examples = Examples(
        Same(np.zeros((4, 4, 3), np.uint8)), [0], Preprocess(8), Augment(), 0, Same(boxes)
    )
    with pytest.raises(BadImageError, match=message):
        shown(examples, Draw(0, 0))


def test_what_cannot_go_together() -> None:
    with pytest.raises(TrainingError, match=r"^--augment rotate=30: rotate cannot be combined wi"):
        Examples(Squares(), [0], Preprocess(8), Augment(rotate_deg=30), 0, square_boxes)
    with pytest.raises(ModelError, match="scale must be above 0 and give at most 8192 pixels"):
        Examples(Squares(), [0], Preprocess(4096), Augment(scale=(1, 3)), 0)
    examples = Examples(Squares(), [0, 1], Preprocess(8), Augment(), 0)
    with pytest.raises(TrainingError, match=r"^batch 0 has 2 pictures of several scales or none"):
        shown(examples, Draw(0, 0), Draw(1, 1, scale=2.0))
    with pytest.raises(TrainingError, match=r"^batch 1 has 0 pictures of several scales or none"):
        list(picture_batches(examples, [[Draw(0, 0)], []], 0, workers=0))


def patch(picture_HWC: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """What lies in a box, 12 x 12."""
    image = Image.fromarray(picture_HWC)
    small = image.resize((12, 12), Image.Resampling.BILINEAR, tuple(box.tolist()))
    return np.asarray(small, np.float64)


@pytest.mark.real
@pytest.mark.parametrize("fit", ["letterbox", "warp"])
def test_real_boxes_stay_on_their_objects(data_dir: Path, fit: Fit) -> None:
    """What a mirrored input shows in a box is the mirrored object, and nothing else fits."""
    voc = open_voc(data_dir / "VOCdevkit" / "VOC2007", "test")
    records = [voc.read(row) for row in range(40)]
    files = Files(tuple(voc.root / record.image_path for record in records))

    def boxes(row: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        return records[row].box_xyxy_B4, records[row].box_class_B

    augment = Augment(mirror=True, scale=(0.7, 1.4))
    examples = Examples(files, range(40), Preprocess(448, fit=fit), augment, 0, boxes)
    batches = epoch_batches(40, 8, 0, 0, augment)
    error, is_right = [], []
    for draws, batch in zip(batches, picture_batches(examples, batches, 0, workers=0), strict=True):
        assert batch.boxes is not None
        for draw, input_CHW, (box_B4, _) in zip(
            draws, batch.input_NCHW.numpy(), batch.boxes, strict=True
        ):
            picture_HWC = np.ascontiguousarray(input_CHW.transpose(1, 2, 0))
            for own, moved in zip(records[draw.place].box_xyxy_B4, box_B4, strict=True):
                wanted = patch(files(draw.place), own)
                got = patch(picture_HWC, moved * len(picture_HWC))
                direct, flipped = (np.abs(got - w).mean() for w in (wanted, wanted[:, ::-1]))
                is_right.append((flipped < direct) == draw.mirrored)
                error.append(flipped if draw.mirrored else direct)
    assert len(error) > 60
    assert all(is_right)
    assert np.median(error) < 1
    assert np.max(error) < 12
