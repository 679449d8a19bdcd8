"""Overlays, pixel by pixel on small arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsltool.errors import BadImageError, UsageError
from wsltool.views.overlay import (
    FORMER_RGB,
    LATTER_RGB,
    OUTLINE_RGB,
    PREDICTED_RGB,
    TRUE_RGB,
    UnitHeat,
    check_boxes,
    display_size,
    draw_overlay,
    heat_contours,
    heat_indices,
    heat_palette,
    region_contours,
    unit_heat,
)


def grey(height_px: int, width_px: int, value: int = 100) -> np.ndarray:
    return np.full((height_px, width_px, 3), value, np.uint8)


def colour_at(canvas: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(canvas[row, column].tolist())


class TestBoxes:
    def test_half_open_edges_at_scale_one(self):
        canvas = draw_overlay(grey(40, 60), None, np.array([[10, 5, 30, 25]]), longest_px=60)
        assert canvas.shape == (40, 60, 3)
        row = [colour_at(canvas, 15, column) for column in range(7, 33)]
        bare, dark, lit = (100,) * 3, OUTLINE_RGB, PREDICTED_RGB
        # Columns 10 and 29 are the first and last inside [10, 30): the line lies inwards.
        assert row == [bare, bare, dark, lit, dark, *[bare] * 16, dark, lit, dark, bare, bare]
        column = [colour_at(canvas, line, 20) for line in range(3, 28)]
        assert column == [bare, dark, lit, dark, *[bare] * 16, dark, lit, dark, bare, bare]

    def test_pixels_away_from_lines_are_the_picture(self):
        rng = np.random.default_rng(0)
        picture = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
        canvas = draw_overlay(picture, None, np.array([[4, 4, 40, 60]]), longest_px=64)
        changed = (canvas != picture).any(axis=2)
        assert not changed[6:58, 6:38].any()
        assert not changed[:3].any()
        assert changed[4, 4:40].all()

    def test_scales_each_axis_by_its_own_factor(self):
        # 20 x 10 becomes 80 x 40, so [5, 10) columns become [20, 40).
        canvas = draw_overlay(grey(10, 20), None, np.array([[5, 2.5, 10, 7.5]]), longest_px=80)
        lit = (canvas == PREDICTED_RGB).all(axis=2)
        rows, columns = np.nonzero(lit)
        assert (rows.min(), rows.max() + 1) == (10, 30)
        assert (columns.min(), columns.max() + 1) == (20, 40)

    def test_true_box_is_dashed_and_shows_a_predicted_one_below(self):
        box = np.array([[8.0, 8.0, 72.0, 56.0]])
        canvas = draw_overlay(grey(64, 80), None, box, box, longest_px=80)
        top = [colour_at(canvas, 8, column) for column in range(8, 72)]
        assert top == [TRUE_RGB if (place // 4) % 2 == 0 else PREDICTED_RGB for place in range(64)]

    def test_a_former_box_is_dotted_red_over_a_green_one(self):
        box = np.array([[10, 5, 30, 25]])
        canvas = draw_overlay(grey(40, 60), None, box, former_box_B4=box, longest_px=60)
        edge = [colour_at(canvas, 5, column) for column in range(10, 30)]
        assert edge == [*[FORMER_RGB] * 2, *[LATTER_RGB] * 2] * 5
        alone = draw_overlay(grey(40, 60), None, box, former_box_B4=np.zeros((0, 4)), longest_px=60)
        assert {colour_at(alone, 5, column) for column in range(10, 30)} == {LATTER_RGB}

    def test_old_and_new_differ_in_luminance_too(self):
        weight = np.array([0.2126, 0.7152, 0.0722])
        old, new = (weight @ (np.array(one) / 255) ** 2.2 for one in (FORMER_RGB, LATTER_RGB))
        assert new > 1.5 * old

    def test_dashes_along_a_vertical_edge_count_rows(self):
        canvas = draw_overlay(grey(64, 80), None, None, np.array([[8, 8, 72, 56]]), longest_px=80)
        left = [colour_at(canvas, row, 8) == TRUE_RGB for row in range(10, 54)]
        assert left == [((row - 8) // 4) % 2 == 0 for row in range(10, 54)]

    def test_parts_outside_are_cut_off(self):
        boxes = np.array([[-50.0, -50.0, 90.0, 90.0], [200, 200, 300, 300], [-9, 4, 0, 9]])
        canvas = draw_overlay(grey(40, 40), None, boxes, longest_px=40)
        assert colour_at(canvas, 0, 0) == PREDICTED_RGB
        assert colour_at(canvas, 39, 39) == PREDICTED_RGB
        assert (canvas[2:38, 2:38] == 100).all()

    def test_a_box_below_one_pixel_is_still_seen(self):
        box = np.array([[500.2, 300.1, 500.4, 300.3]])
        canvas = draw_overlay(grey(600, 1000), None, box, longest_px=100)
        assert colour_at(canvas, 30, 50) == PREDICTED_RGB
        assert (canvas == PREDICTED_RGB).all(axis=2).sum() == 1

    def test_the_two_colours_differ_in_blue_and_luminance(self):
        # Colour vision deficiencies keep blue against yellow (tritan: light against dark).
        weight = np.array([0.2126, 0.7152, 0.0722])
        true, predicted = np.array(TRUE_RGB), np.array(PREDICTED_RGB)
        assert abs(int(true[2]) - int(predicted[2])) > 200
        assert abs(weight @ (predicted - true)) > 40
        assert weight @ OUTLINE_RGB < 20

    @pytest.mark.parametrize(
        ("boxes", "message"),
        [
            ([[0, 0, 5, 5], [3, 3, 3, 9]], r"box 1 is \[3\.0, 3\.0, 3\.0, 9\.0\]; expected finite"),
            ([[0, np.nan, 5, 5]], r"box 0 is \[0\.0, nan, 5\.0, 5\.0\]; expected finite"),
            ([1, 2, 3, 4], r"boxes have shape \(4,\); expected \(B, 4\)"),
        ],
    )
    def test_bad_boxes(self, boxes, message):
        with pytest.raises(BadImageError, match=message):
            check_boxes(np.array(boxes, dtype=float))

    def test_no_boxes(self):
        assert check_boxes(None).shape == (0, 4)
        assert check_boxes(np.empty((0,))).shape == (0, 4)


class TestPicture:
    def test_without_heat_and_boxes_nothing_changes(self):
        picture = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)
        canvas = draw_overlay(picture, longest_px=64)
        np.testing.assert_array_equal(canvas, picture)
        canvas[:] = 0
        assert picture.any()  # the input is not the output

    @pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1)])
    def test_grey_becomes_three_equal_channels(self, shape):
        picture = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        canvas = draw_overlay(picture, longest_px=40)
        np.testing.assert_array_equal(canvas, np.repeat(picture.reshape(30, 40, 1), 3, axis=2))

    @pytest.mark.parametrize(
        ("size", "longest_px", "expected"),
        [
            ((500, 375), 360, (360, 270)),
            ((375, 500), 360, (270, 360)),
            ((100, 75), 360, (360, 270)),
            ((20, 600), 360, (12, 360)),
            ((1, 9000), 360, (1, 360)),
            ((1, 1), 16, (16, 16)),
        ],
    )
    def test_size(self, size, longest_px, expected):
        assert display_size(*size, longest_px) == expected
        assert draw_overlay(grey(size[1], size[0]), longest_px=longest_px).shape[1::-1] == expected

    @pytest.mark.parametrize(
        ("picture", "message"),
        [
            (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\) and type uint8; expected rows"),
            (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) and type uint8"),
            (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\) and type float64"),
            (np.zeros(4, np.uint8), r"shape \(4,\) and type uint8"),
        ],
    )
    def test_unusable_pictures(self, picture, message):
        with pytest.raises(BadImageError, match=message):
            draw_overlay(picture)

    def test_longest_side_has_a_floor(self):
        with pytest.raises(UsageError, match="longest_px must be at least 16, got 15"):
            draw_overlay(grey(4, 4), longest_px=15)


class TestHeat:
    def test_hottest_and_coldest_pixel(self):
        heat = np.zeros((16, 16))
        heat[3, 7] = 5.0
        canvas = draw_overlay(grey(16, 16), heat, longest_px=16)
        red, green, blue, alpha = heat_palette()[255].tolist()
        expected = [round(100 + (c - 100) * alpha / 255) for c in (red, green, blue)]
        assert canvas[3, 7].tolist() == expected
        assert (np.delete(canvas.reshape(-1, 3), 3 * 16 + 7, axis=0) == 100).all()

    def test_palette_is_bare_at_the_bottom_and_never_less_opaque_above(self):
        alpha = heat_palette()[:, 3].astype(int)
        assert (alpha[:32] == 0).all()
        assert (np.diff(alpha) >= 0).all()
        assert alpha[-1] == round(255 * 0.64) == alpha[160]

    @pytest.mark.parametrize(
        "heat",
        [
            np.full((20, 30), 7.0),
            np.zeros((20, 30)),
            np.full((20, 30), np.nan),
            np.full((20, 30), -np.inf),
            np.full((20, 30), 1e308),
        ],
    )
    @pytest.mark.parametrize("longest_px", [16, 30, 90])
    def test_a_map_that_tells_nothing_leaves_the_picture_bare(self, heat, longest_px):
        canvas = draw_overlay(grey(20, 30), heat, contour_level=3.0, longest_px=longest_px)
        assert (canvas == 100).all()

    def test_cells_outside_the_extent_are_bare_and_out_of_the_range(self):
        heat = np.full((20, 40), -np.inf)
        heat[:, 10:30] = np.linspace(1, 2, 20)
        for longest_px in (20, 40, 120):
            canvas = draw_overlay(grey(20, 40), heat, longest_px=longest_px)
            tenth = longest_px // 40 * 10 or 5
            assert (canvas[:, :tenth] == 100).all()
            assert (canvas[:, -tenth:] == 100).all()
            assert (canvas[:, -tenth - 1] != 100).any()

    def test_neighbours_of_missing_cells_keep_their_value(self):
        heat = np.full((8, 8), 1.0)
        heat[:, 0] = 0.0
        heat[:, 4:] = np.nan
        grown = unit_heat(heat, (32, 32)).heat_HW
        np.testing.assert_allclose(grown[:, 8:15], 1.0)
        assert np.isnan(grown[:, 17:]).all()

    def test_range_of_huge_numbers(self):
        heat = np.array([[-1.7e308, 1.7e308], [0.0, 0.0]])
        np.testing.assert_allclose(unit_heat(heat, (2, 2)).heat_HW, [[0, 1], [0.5, 0.5]])

    @settings(max_examples=40, deadline=None)
    @given(
        heat=hnp.arrays(
            np.float64,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
            elements=st.floats(width=64) | st.just(-np.inf),
        ),
        size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    )
    def test_always_in_range_and_input_unchanged(self, heat, size):
        before = heat.copy()
        unit = unit_heat(heat, size).heat_HW
        assert unit.shape == size[::-1]
        known = unit[~np.isnan(unit)]
        assert ((known >= 0) & (known <= 1)).all()
        assert heat_indices(unit).dtype == np.uint8
        np.testing.assert_array_equal(heat, before)

    def test_scale_and_shift_do_not_matter(self):
        heat = np.random.default_rng(0).normal(size=(15, 11))
        one, two = unit_heat(heat, (20, 30), 0.5), unit_heat(heat * 8 - 4, (20, 30), 0.0)
        np.testing.assert_allclose(one.heat_HW, two.heat_HW, atol=1e-6)
        assert one.level == pytest.approx(two.level)

    def test_swapped_sides_are_refused(self):
        message = r"heat has shape \(30, 20\), but its picture has \(20, 30\) rows and columns"
        with pytest.raises(BadImageError, match=message):
            draw_overlay(grey(20, 30), np.zeros((30, 20)))

    def test_heat_needs_two_axes(self):
        with pytest.raises(BadImageError, match=r"heat has shape \(1, 4, 4\); expected rows"):
            unit_heat(np.zeros((1, 4, 4)), (4, 4))


class TestContour:
    def test_outline_runs_through_the_outermost_cells_above(self):
        heat = np.zeros((10, 12), np.float32)
        heat[2:6, 3:9] = 1.0
        (outline,) = heat_contours(UnitHeat(heat, 0.5))
        assert outline.min(axis=0).tolist() == [3.5, 2.5]
        assert outline.max(axis=0).tolist() == [8.5, 5.5]

    def test_above_is_strict(self):
        heat = np.array([[0.0, 0.5], [0.5, 1.0]], np.float32)
        (outline,) = heat_contours(UnitHeat(heat, 0.5))
        assert outline.tolist() == [[1.5, 1.5]]

    @pytest.mark.parametrize("level", [None, 2.0, -1.0])
    def test_no_level_in_the_range_no_outline(self, level):
        heat = np.linspace(0, 1, 36).reshape(6, 6)
        assert heat_contours(unit_heat(heat, (6, 6), level)) == []

    def test_it_is_drawn_white(self):
        heat = np.zeros((40, 40))
        heat[10:30, 10:30] = 1.0
        canvas = draw_overlay(grey(40, 40), heat, contour_level=0.5, longest_px=40)
        assert canvas[10, 20].min() > 230  # anti-aliased, so not quite white
        assert canvas[9, 20].max() < 140
        assert canvas[20, 20].min() < 100


class TestRegions:
    def test_the_outline_of_a_region(self):
        region = np.zeros((20, 30), bool)
        region[5:10, 12:18] = True
        (outline,) = region_contours(region, (30, 20))
        assert outline.min(axis=0).tolist() == [12.5, 5.5]
        assert outline.max(axis=0).tolist() == [17.5, 9.5]
        (large,) = region_contours(region, (60, 40))
        assert large.min(axis=0).tolist() == [24.5, 10.5]
        assert region_contours(region & False, (30, 20)) == []

    def test_it_is_drawn_white_and_needs_the_size_of_the_picture(self):
        region = np.zeros((20, 30), bool)
        region[5:15, 5:15] = True
        canvas = draw_overlay(grey(20, 30), region_HW=region, longest_px=30)
        assert (canvas[5, 6:14] > 230).all()
        assert (canvas[8:12, 8:12] == 100).all()
        with pytest.raises(BadImageError, match=r"heat has shape \(20, 29\), but its picture has"):
            draw_overlay(grey(20, 30), region_HW=region[:, 1:])
