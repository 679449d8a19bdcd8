"""Ten crops: where they lie, how their maps are enlarged and merged, what the scores are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from wsltool.errors import ModelError
from wsltool.nets.models import load_model
from wsltool.nets.ten_crops import (
    check_ten_crops,
    cubic_weights,
    mean_of_crops,
    merge_crops,
    merged_grid,
    ten_crops,
    warp_px,
)


@pytest.mark.parametrize(("crop", "warp"), [(224, 256), (227, 256), (112, 128), (8, 9), (320, 366)])
def test_the_warp_is_256_for_224_and_227_and_in_proportion_for_others(crop, warp):
    assert warp_px(crop) == warp
    assert merged_grid(crop) == (min(64, warp),) * 2


@pytest.mark.parametrize(("crop", "middle", "last"), [(224, 16, 32), (227, 15, 29), (8, 1, 1)])
def test_the_places_are_those_of_caffe(crop, middle, last):
    """``indices = [0 256-crop] + 1; center = floor(indices(2) / 2) + 1``, from 1."""
    assert (warp_px(crop) - crop, (last + 1) // 2) == (last, middle)
    side = warp_px(crop)
    x = torch.arange(side * side).reshape(1, 1, side, side).float()
    found = ten_crops(x, crop)
    assert len(found) == 10
    assert {tuple(one.shape) for one in found} == {(1, 1, crop, crop)}
    first = [divmod(int(one[0, 0, 0, 0]), side) for one in found[:5]]
    assert first == [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]
    for plain, mirrored in zip(found[:5], found[5:], strict=True):
        assert torch.equal(mirrored, plain.flip(3))


class TestEnlarging:
    """``imresize`` of MATLAB: Keys' kernel with a = -1/2, edges mirrored."""

    def test_by_hand(self):
        """Twice as many pixels lie 1/4 and 3/4 between cells: -.0703, .8672, .2266, -.0234."""
        found = cubic_weights(6, 12)
        near, far = 0.8671875, 0.2265625
        np.testing.assert_allclose(found[5], [0, -0.0703125, near, far, -0.0234375, 0])
        # pixel 0 lies at -1/4: cells -2, -1, 0, 1 are 1, 0, 0, 1
        np.testing.assert_allclose(
            found[0], [far + near, -0.0234375 - 0.0703125, 0, 0, 0, 0], atol=1e-15
        )

    @pytest.mark.parametrize(("num_cells", "num_px"), [(7, 224), (14, 224), (13, 227), (9, 4)])
    def test_rows_add_up_to_1_and_are_symmetric(self, num_cells, num_px):
        found = cubic_weights(num_cells, num_px)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(found, found[::-1, ::-1], atol=1e-12)

    @pytest.mark.parametrize(("num_cells", "factor"), [(7, 32), (14, 16), (5, 3)])
    def test_pillow_gives_the_same(self, num_cells, factor):
        """Its bicubic has a = -1/2 too; it is given the mirrored cells."""
        cells = np.random.default_rng(0).normal(size=(num_cells, num_cells)).astype(np.float32)
        weight = cubic_weights(num_cells, num_cells * factor)
        around = np.pad(cells, 4, mode="symmetric")
        side = len(around) * factor
        large = Image.fromarray(around).resize((side, side), Image.Resampling.BICUBIC)
        inside = np.asarray(large)[4 * factor : -4 * factor, 4 * factor : -4 * factor]
        np.testing.assert_allclose(weight @ cells @ weight.T, inside, atol=2e-6)


class TestMerging:
    """Maps of crops added up where the crops lie."""

    def test_constant_maps_count_how_many_crops_lie_there(self):
        """224 of 256: the corner is in 2 crops, the middle in all ten; minus counts as plus."""
        found = merge_crops([torch.full((1, 1, 7, 7), -2.0)] * 10, 224)[0, 0]
        assert found.shape == (64, 64)
        assert found[0, 0] == pytest.approx(2 * 2)
        assert found[32, 32] == pytest.approx(2 * 10)
        assert found[0, 32] == pytest.approx(2 * 4)  # two corners
        assert found[5, 32] == pytest.approx(2 * 6)  # and the centre, from row 16 on
        assert torch.allclose(found, found.flip(0))
        assert torch.allclose(found, found.T)

    @pytest.mark.parametrize("place", range(10))
    def test_a_crop_lies_at_its_place_and_mirrors_are_undone(self, place):
        """A map that is 1 on its left: on the right of the crop where that was mirrored."""
        maps = [torch.zeros((1, 1, 14, 14)) for _ in range(10)]
        maps[place][..., :2] = 1.0
        found = merge_crops(maps, 224)[0, 0].numpy()
        row, col = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)][place % 5]
        expected = np.zeros((256, 256))
        weight = cubic_weights(14, 224)
        large = np.abs(weight @ maps[place][0, 0].double().numpy() @ weight.T)
        expected[row : row + 224, col : col + 224] = large if place < 5 else large[:, ::-1]
        areas = expected.reshape(64, 4, 64, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(found, areas, atol=1e-6)
        middle = found[32].argmax() * 4 + 2
        assert (middle < col + 32) if place < 5 else (middle > col + 192)

    def test_many_maps_are_those_one_by_one(self):
        rng = torch.Generator().manual_seed(0)
        maps = [torch.randn((9, 11, 4, 4), generator=rng) for _ in range(10)]
        found = merge_crops(maps, 32)
        assert found.shape == (9, 11, 37, 37)
        one = merge_crops([part[3:4, 5:6] for part in maps], 32)
        torch.testing.assert_close(found[3:4, 5:6], one)

    def test_no_map_at_all(self):
        assert merge_crops([torch.zeros((2, 0, 7, 7))] * 10, 224).shape == (2, 0, 64, 64)


class TestScores:
    """The mean is of probabilities, as the released code's."""

    def test_softmax(self):
        logit = torch.tensor([[[2.0, 0.0, -1.0]], [[0.0, 3.0, 1.0]]])
        found = mean_of_crops(logit, logistic=False).softmax(1)
        torch.testing.assert_close(found, logit.softmax(2).mean(0))

    def test_sigmoid(self):
        logit = torch.tensor([[[2.0, -3.0]], [[0.0, 5.0]], [[1.0, 1.0]]])
        found = mean_of_crops(logit, logistic=True).sigmoid()
        torch.testing.assert_close(found, logit.sigmoid().mean(0))

    def test_large_logits_stay_finite(self):
        logit = torch.tensor([[[200.0, -200.0]], [[200.0, -200.0]]])
        assert mean_of_crops(logit, logistic=True).tolist() == [[200.0, -200.0]]
        assert mean_of_crops(logit, logistic=False).tolist() == [[0.0, -400.0]]


def test_a_model_that_does_not_warp_is_refused():
    model = load_model("tests.stages.tiny_networks:colours")
    check_ten_crops(model)
    model.preprocess = model.preprocess.at(fit="letterbox")
    with pytest.raises(ModelError, match=r"by letterbox\. Pass --fit warp\.$"):
        check_ten_crops(model)
