from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from busi_lab.data.transforms import Augmentation
from tests.data.augmentations import PAPER, settings

SIDE = 200
SEEDS = range(250)


def warps(setting: Mapping[str, Any], seeds: Iterable[int] = SEEDS) -> NDArray[np.float64]:
    """The affine maps ``[N, 2, 3]`` (x, y about the centre, pixels) by which an augmentation moves points.

    Found by warping two ramps, whose gray levels tell where each pixel came from.
    """
    augmentation = Augmentation(setting)
    across = np.tile(np.arange(SIDE, dtype=np.uint8), (SIDE, 1))
    centre = (SIDE - 1) / 2
    maps = []
    for seed in seeds:
        came = [augmentation(np.ascontiguousarray(ramp), None, seed)[0].astype(float) for ramp in (across, across.T)]
        inside = np.all([(ramp > 2) & (ramp < SIDE - 3) for ramp in came], axis=0)
        y, x = np.nonzero(inside)
        there = np.stack([x - centre, y - centre, np.ones(len(x))], axis=1)
        back = np.stack([ramp[inside] - centre for ramp in came], axis=1)
        linear, *_ = np.linalg.lstsq(there, back, rcond=None)
        inverse = np.vstack([linear.T, [0, 0, 1]])
        maps.append(np.linalg.inv(inverse)[:2])
    return np.array(maps)


def assert_fills(values: NDArray[np.float64], low: float, high: float, tolerance: float) -> None:
    """All values are within the bounds, and together they use them."""
    assert low - tolerance <= values.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < values.max() <= high + tolerance


def test_the_configured_paper_set_is_the_published_table() -> None:
    assert settings("paper") == PAPER
    assert not Augmentation(settings("none"))._pipeline


def test_rotation_is_up_to_5_degrees() -> None:
    maps = warps({"rotation": PAPER["rotation"]})
    assert_fills(np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0])), -5, 5, 0.05)
    assert np.allclose(np.linalg.det(maps[:, :, :2]), 1, atol=0.005)
    assert np.abs(maps[:, :, 2]).max() < 0.7  # about the centre


def test_shift_is_up_to_a_tenth_of_the_side_along_both_axes() -> None:
    maps = warps({"shift": PAPER["shift"]})
    for axis in (0, 1):
        assert_fills(maps[:, axis, 2] / SIDE, -0.1, 0.1, 0.003)
    assert abs(np.corrcoef(maps[:, :, 2].T)[0, 1]) < 0.2
    assert np.allclose(maps[:, :, :2], np.eye(2), atol=0.005)


def test_shear_is_up_to_005_radians_along_x() -> None:
    maps = warps({"shear": PAPER["shear"]})
    assert_fills(np.arctan(maps[:, 0, 1]), -0.05, 0.05, 0.002)
    assert np.abs(maps[:, 1, 0]).max() < 0.002
    assert np.allclose(maps[:, [0, 1], [0, 1]], 1, atol=0.003)


def test_zoom_is_up_to_5_percent_of_each_axis_on_its_own() -> None:
    maps = warps({"zoom": PAPER["zoom"]})
    for axis in (0, 1):
        assert_fills(maps[:, axis, axis], 0.95, 1.05, 0.002)
    assert abs(np.corrcoef(maps[:, 0, 0], maps[:, 1, 1])[0, 1]) < 0.2
    assert np.abs(maps[:, [0, 1], [1, 0]]).max() < 0.002


def test_half_of_the_scans_are_flipped_left_to_right() -> None:
    maps = warps({"horizontal_flip": True})
    assert set(np.round(maps[:, 0, 0])) == {-1, 1}
    assert 0.4 < np.mean(maps[:, 0, 0] < 0) < 0.6
    assert np.allclose(maps[:, 1, 1], 1, atol=1e-6)


def test_brightness_multiplies_by_1_to_14() -> None:
    augmentation = Augmentation({"brightness": PAPER["brightness"]})
    levels = np.repeat(np.array([[0, 50, 100, 150, 250]], np.uint8), 5, axis=0)
    factors = []
    for seed in SEEDS:
        black, dark, gray, light, white = augmentation(levels, None, seed)[0][0].astype(float)
        factors.append(gray / 100)
        assert black == 0
        assert abs(2 * dark - gray) <= 2 and abs(light - 1.5 * gray) <= 2
        assert white == pytest.approx(min(255, 2.5 * gray), abs=3)
    assert_fills(np.array(factors), 1.0, 1.4, 0.01)


def test_edge_pixels_repeat() -> None:
    image = np.random.default_rng(0).integers(60, 200, (SIDE, SIDE), dtype=np.uint8)
    for seed in range(40):
        assert Augmentation(PAPER)(image, None, seed)[0].min() >= 60  # a fill would be black
    shifts = warps({"shift": 0.1}, range(10))[:, 0, 2]
    seed = int(np.abs(shifts).argmax())
    shift = shifts[seed]
    margin = int(abs(shift)) - 1
    assert margin > 3
    edge = Augmentation({"shift": 0.1})(image, None, seed)[0]
    edge = edge if shift > 0 else edge[:, ::-1]
    assert (edge[:, :margin] == edge[:, :1]).all() and not (edge[:, -margin:] == edge[:, -1:]).all()


def test_steps_are_independent_of_each_other() -> None:
    image = np.full((SIDE, SIDE), 50, np.uint8)
    image[:, 40:80] = 150  # off centre: a flip shows
    drawn = []
    for seed in SEEDS:
        row = Augmentation({"shift": 0.1, "brightness": [1.0, 1.4], "horizontal_flip": True})(image, None, seed)[0][100]
        bar = np.flatnonzero(row > 1.5 * row.min())
        flipped = bar.mean() > SIDE / 2
        shift = (SIDE - 1 - bar.mean() if flipped else bar.mean()) - 59.5
        drawn.append([shift, flipped, float(row.min())])
    correlation = np.corrcoef(np.array(drawn).T)
    assert np.abs(correlation - np.eye(3)).max() < 0.2


def dice(one: NDArray[Any], two: NDArray[Any]) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_scan_and_mask_move_together(name: str) -> None:
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[60:120, 40:110] = 255
    augmentation = Augmentation(settings(name))
    moved = 0
    for seed in range(40):
        warped, mask = augmentation(image, image // 255, seed)
        assert mask is not None and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        assert dice(warped > int(warped.max()) / 2, mask > 0) > 0.9
        moved += dice(mask > 0, image > 0) < 0.9
    assert moved > 20


@pytest.mark.parametrize("name", ["paper", "strong", "trivial"])
def test_a_seed_means_one_result(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    before = image.copy()
    mask = (image > 200).astype(np.uint8)
    one, two = (Augmentation(settings(name)) for _ in range(2))
    results = []
    for seed in range(10):
        scan, lesion = one(image, mask, seed)
        assert scan.shape == (64, 64) and scan.dtype == np.uint8
        two(image, mask, seed + 100)  # what came before does not matter
        again, lesion_again = two(image, mask, seed)
        assert np.array_equal(scan, again) and np.array_equal(lesion, lesion_again)  # type: ignore[arg-type]
        results.append(scan.tobytes())
    assert len(set(results)) == 10
    assert np.array_equal(image, before)


def test_no_setting_no_change() -> None:
    image = np.zeros((8, 8), np.uint8)
    mask = image.copy()
    for nothing in ({}, {"rotation": 0.0, "brightness": None, "horizontal_flip": False}):
        scan, lesion = Augmentation(nothing)(image, mask, 0)
        assert scan is image and lesion is mask


def test_speckle_has_the_deviation_asked_for() -> None:
    image = np.full((SIDE, SIDE), 100, np.uint8)
    scans = [Augmentation({"speckle": 0.1})(image, None, seed)[0] for seed in range(20)]
    noisy = [scan.std() for scan in scans if scan.std() > 0]
    assert 4 < len(noisy) < 16
    assert np.allclose(noisy, 10, atol=0.3)


def test_a_crop_is_a_window_of_so_much_of_the_area_in_the_whole_size() -> None:
    maps = warps({"crop": [0.5, 0.8], "crop_ratio": [0.75, 1.3333]})
    across, down = maps[:, 0, 0], maps[:, 1, 1]
    assert_fills(1 / (across * down), 0.5, 0.8, 0.01)
    assert_fills(down / across, 0.75, 1.3333, 0.02)
    corners = np.abs(maps[:, [0, 1], 2]) - (np.stack([across, down], axis=1) - 1) * SIDE / 2
    assert corners.max() < 1.5  # nothing from beyond the scan
    tall = np.zeros((40, 90), np.uint8)
    assert Augmentation({"crop": [0.5, 0.8]})(tall, tall, 0)[0].shape == (40, 90)


def test_an_erased_box_has_one_gray_level_and_stays_in_the_mask() -> None:
    draw = np.random.default_rng(0)
    image, mask = (draw.integers(0, high, (SIDE, SIDE), dtype=np.uint8) for high in (256, 2))
    shares = []
    for seed in SEEDS:
        scan, lesion = Augmentation({"erase": 0.5, "erase_share": [0.05, 0.1]})(image, mask, seed)
        assert lesion is not None and np.array_equal(lesion, mask)
        changed = np.argwhere(scan != image)
        if len(changed):
            (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
            assert len(np.unique(scan[top:bottom, left:right])) == 1
            shares.append((bottom - top) * (right - left) / SIDE**2)
    assert 0.4 < len(shares) / len(SEEDS) < 0.6
    assert_fills(np.array(shares), 0.05, 0.1, 0.005)


def test_trivial_changes_one_thing_and_moves_the_mask_with_the_scan() -> None:
    image = np.full((SIDE, SIDE), 60, np.uint8)
    image[60:120, 40:110] = 200
    image[::9] += 10
    mask = (image > 150).astype(np.uint8)
    before = image.copy()
    kinds = {"none": 0, "levels": 0, "geometry": 0}
    for seed in range(400):
        scan, lesion = Augmentation({"trivial": True})(image, mask, seed)
        assert lesion is not None and set(np.unique(lesion)) <= {0, 1}
        if np.array_equal(lesion, mask):
            kinds["none" if np.array_equal(scan, image) else "levels"] += 1
            continue
        kinds["geometry"] += 1
        assert dice(scan > 135, lesion > 0) > 0.9
        assert scan.min() >= 60 and scan.max() <= 210  # gray levels stay
    assert np.array_equal(image, before)
    assert kinds["none"] > 10 and kinds["levels"] > 120 and 110 < kinds["geometry"] < 190  # 5 of 13 move
