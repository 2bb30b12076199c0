import math

import numpy as np
import pytest

from busi_lab.inference.measures import measure


def test_measures_of_a_rectangle() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:35, 20:30] = True  # 30 rows, 10 columns
    (lesion,) = measure(mask, (0.1, 0.2))
    assert lesion.area_pixels == 300
    assert lesion.area_mm2 == pytest.approx(6.0)
    assert lesion.bounding_box == (20, 5, 10, 30)
    assert lesion.longest_diameter_pixels == pytest.approx(math.hypot(30, 10))
    assert lesion.longest_diameter_mm == pytest.approx(math.hypot(30 * 0.1, 10 * 0.2))
    (plain,) = measure(mask)
    assert (plain.area_mm2, plain.longest_diameter_mm) == (None, None)


def test_the_longest_way_in_millimetres_is_not_that_in_pixels() -> None:
    mask = np.zeros((30, 30), bool)
    mask[10, :20] = True  # 20 pixels of 0.1 mm across
    mask[:20, 0] = True  # 20 of 1 mm down
    (lesion,) = measure(mask, (1.0, 0.1))
    assert lesion.longest_diameter_mm == pytest.approx(math.hypot(20, 0.1), rel=1e-2)
    assert lesion.longest_diameter_pixels == pytest.approx(math.hypot(20, 11), rel=0.2)


def test_parts_touch_at_corners_and_the_largest_comes_first() -> None:
    mask = np.zeros((12, 12), bool)
    mask[0, 0] = True
    mask[4:6, 4:6] = mask[6:8, 6:8] = True  # two squares that meet at a corner
    large, small = measure(mask)
    assert (large.area_pixels, large.bounding_box) == (8, (4, 4, 4, 4))
    assert large.longest_diameter_pixels == pytest.approx(math.hypot(4, 4))
    assert (small.area_pixels, small.bounding_box) == (1, (0, 0, 1, 1))
    assert small.longest_diameter_pixels == pytest.approx(math.sqrt(2))
    assert measure(np.zeros((5, 5), bool)) == ()


def test_confidence_is_the_mean_probability_of_the_part() -> None:
    mask, probabilities = np.zeros((12, 12), bool), np.full((12, 12), 0.1, np.float32)
    mask[2:4, 3:6] = mask[8, 8] = True
    probabilities[2:4, 3:6] = [[0.5, 0.75, 1.0], [0.5, 0.75, 0.75]]
    probabilities[8, 8] = 0.625
    large, small = measure(mask, probabilities=probabilities)
    assert (large.area_pixels, large.confidence) == (6, pytest.approx(4.25 / 6))
    assert (small.area_pixels, small.confidence) == (1, 0.625)
    assert measure(mask)[0].confidence is None
