"""The record of heat on the grid, and the Gaussian that is its baseline."""

from __future__ import annotations

import numpy as np

from wsltool.metrics.grid_heats import GridHeats, centre_grid_heat, centred_gaussian, flat_maps


def _heats():
    heat_NHW = np.zeros((3, 224, 224))
    heat_NHW[:, 0, 0] = 0.1, 0.2, 0.3
    return GridHeats(
        has_map_N=np.array([True, True, False]),
        heat_NHW=heat_NHW,
        off_grid_N=np.array([False, True, False]),
        masks=lambda: heat_NHW.astype(np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None],
    )


def test_take():
    taken = _heats().take(np.array([2, 1]))
    assert len(taken) == 2
    assert taken.has_map_N.tolist() == [False, True]
    assert taken.heat_NHW[:, 0, 0].tolist() == [0.3, 0.2]
    assert taken.off_grid_N.tolist() == [False, True]
    assert taken.masks()[:, 0, 0].tolist() == [2, 1]
    assert taken.take(np.array([0])).masks()[0, 0, 0] == 2


def test_gaussian():
    heat_HW = centred_gaussian()
    assert heat_HW.shape == (224, 224)
    assert heat_HW.dtype == np.float64
    assert (heat_HW.min(), heat_HW.max()) == (0, 1)
    np.testing.assert_array_equal(heat_HW, heat_HW.T)
    np.testing.assert_array_equal(heat_HW, heat_HW[::-1, ::-1])
    assert (np.diff(heat_HW[112, 111:]) <= 0).all()


def test_gaussian_of_one_pixel():
    assert centred_gaussian(1).tolist() == [[0.0]]


def test_baseline_keeps_which_images_have_a_map():
    centred = centre_grid_heat(_heats())
    np.testing.assert_array_equal(centred.heat_NHW[0], centred_gaussian())
    assert not centred.heat_NHW[2].any()
    assert centred.has_map_N.tolist() == [True, True, False]
    assert centred.masks is not None


def test_flat_maps():
    heats = _heats()
    assert flat_maps(heats).tolist() == [False] * 3
    heats.heat_NHW[1] = 0
    assert flat_maps(heats).tolist() == [False, True, False]
    assert flat_maps(heats.take(np.zeros(0, int))).dtype == bool
