"""Stretching sub-grids, against torch's own interpolation."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch

from wsltool.nets.sub_grids import StretchedReader, stretched


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (5, 3), (7, 7), (17, 16)])
def test_as_torch_does(grid):
    """Every sub-grid of a grid, each channel alone, nothing read outside it."""
    rows, cols = grid
    feature_NCHW = torch.randn((1, 5, rows, cols), generator=torch.Generator().manual_seed(0))
    sub_grids = [
        (x0, y0, x1, y1)
        for (x0, x1), (y0, y1) in product(
            combinations(range(cols + 1), 2), combinations(range(rows + 1), 2)
        )
    ][:: 1 + (rows == 17) * 50]
    found = stretched(feature_NCHW.expand(len(sub_grids), -1, -1, -1), sub_grids)
    for one, (x0, y0, x1, y1) in zip(found, sub_grids, strict=True):
        expected = torch.nn.functional.interpolate(
            feature_NCHW[:, :, y0:y1, x0:x1], grid, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(one, expected[0], rtol=1e-5, atol=1e-5)


def test_the_whole_grid_stays_as_it_is():
    feature_NCHW = torch.randn((2, 3, 6, 6))
    found = stretched(feature_NCHW, [(0, 0, 6, 6)] * 2)
    assert torch.equal(found, feature_NCHW)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("grid", [(1, 4), (5, 3), (7, 7)])
def test_a_layer_on_every_sub_grid(grid, bias):
    """Read first and stretched then is stretched first and read then."""
    rows, cols = grid
    generator = torch.Generator().manual_seed(1)
    feature_CHW = torch.randn((6, rows, cols), generator=generator)
    layer = torch.nn.Linear(6 * rows * cols, 9, bias=bias)
    sub_grids = [
        (0, 0, cols, rows),
        (1, 0, cols, rows),
        (0, 0, 1, 1),
        (cols - 1, rows - 1, cols, rows),
    ]
    reader = StretchedReader(layer, grid)
    with torch.no_grad():
        read_OP = reader.of(feature_CHW)
        found_NO = reader(read_OP, sub_grids)
        whole_NCHW = stretched(feature_CHW.expand(len(sub_grids), -1, -1, -1), sub_grids)
        torch.testing.assert_close(found_NO, layer(whole_NCHW.flatten(1)), rtol=1e-5, atol=1e-5)
    assert read_OP.nbytes == reader.num_bytes(layer, grid)
