from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from busi_lab.data.phantom import make_phantom
from busi_lab.data.stress import LADDERS, SEVERITIES, degrade, lesion_alone, without_lesion

NAMES = ["speckle", "gain", "contrast", "blur", "jpeg", "zoom", "rotation", "shadow", "calipers"]
SCAN, LESION = make_phantom("malignant", np.random.default_rng(3), 400, 520)
NONE = np.zeros_like(LESION)


def distance(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(float) - two).mean())


def flat(level: int, height: int = 100, width: int = 120) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return np.full((height, width), level, np.uint8), np.zeros((height, width), np.bool_)


# ----------------------------------------------------------------------------------------------- ladders


def test_the_ladders_have_five_amounts_and_a_unit() -> None:
    assert list(LADDERS) == NAMES
    assert SEVERITIES == (1, 2, 3, 4, 5)
    for ladder in LADDERS.values():
        steps = np.diff(ladder.amounts)
        assert len(steps) == 4 and (np.all(steps > 0) or np.all(steps < 0))
        assert ladder.unit and ladder.change


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("ladder", NAMES)
def test_a_severity_is_farther_from_the_scan_than_the_one_before(ladder: str, seed: int) -> None:
    distances = [distance(degrade(SCAN, LESION, ladder, severity, seed)[0], SCAN) for severity in SEVERITIES]
    assert distances[0] > 0
    assert all(before < after for before, after in pairwise(distances))


@pytest.mark.parametrize("ladder", NAMES)
def test_the_same_arguments_give_the_same_result(ladder: str) -> None:
    scan, lesion = SCAN.copy(), LESION.copy()
    one, two = (degrade(scan, lesion, ladder, 4, 7) for _ in range(2))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    assert np.array_equal(scan, SCAN) and np.array_equal(lesion, LESION)
    if ladder in ("speckle", "gain", "zoom", "rotation", "shadow"):
        assert distance(one[0], degrade(scan, lesion, ladder, 4, 8)[0]) > 0


@pytest.mark.parametrize("ladder", [name for name in NAMES if name not in ("zoom", "rotation")])
def test_the_lesion_stays_where_the_scan_does(ladder: str) -> None:
    assert np.array_equal(degrade(SCAN, LESION, ladder, 5, 0)[1], LESION)


def test_gain_by_hand() -> None:
    scan, mask = flat(100)
    decibels = LADDERS["gain"].amounts
    for severity in SEVERITIES:
        change = decibels[severity - 1] * 255 / 60
        for seed, sign in ((0, 1), (1, -1)):
            levels = set(degrade(scan, mask, "gain", severity, seed)[0].ravel())
            assert levels == {round(np.clip(100 + sign * change, 0, 255))}
    black, _ = flat(0)
    assert not degrade(black, mask, "gain", 5, 0)[0].any()


def test_contrast_by_hand() -> None:
    scan, mask = flat(128)
    scan[:, 60:], scan[:50, 60:] = 228, 28
    changed = degrade(scan, mask, "contrast", 5, 0)[0]  # a quarter of the distance to 128 is left
    assert (changed[0, 0], changed[-1, -1], changed[0, -1]) == (128, 153, 103)


def test_speckle_has_the_spread_that_is_asked_for() -> None:
    scan, mask = flat(120, 400, 400)
    noisy = degrade(scan, mask, "speckle", 3, 0)[0].astype(float)
    assert noisy.std() == pytest.approx(2.8 * 255 / 60, rel=0.05)
    assert noisy.mean() < 120  # the logarithm of a Rayleigh amplitude leans towards dark
    steps = [
        np.corrcoef(noisy[:-1].ravel(), noisy[1:].ravel()),
        np.corrcoef(noisy[:, :-1].ravel(), noisy[:, 1:].ravel()),
    ]
    assert steps[1][0, 1] > steps[0][0, 1] > 0.3  # grains, wider than tall


def test_blur_means_the_same_for_every_size() -> None:
    for side in (100, 400):
        scan, mask = flat(0, side, side)
        scan[:, side // 2 :] = 200
        row = degrade(scan, mask, "blur", 5, 0)[0][side // 2].astype(float)
        at = int(np.argmax(row >= 200 * 0.8413))  # one sigma behind the edge
        assert at - side / 2 == pytest.approx(0.02 * side, abs=1.5)


@pytest.mark.parametrize(("seed", "sign"), [(0, 1), (1, -1)])
def test_the_mask_follows_zoom_and_rotation(seed: int, sign: int) -> None:
    scan, mask = flat(50, 200, 300)
    mask[90:110, 60:100] = True
    scan[mask] = 200
    for severity in SEVERITIES:
        zoomed, followed = degrade(scan, mask, "zoom", severity, seed)
        factor = LADDERS["zoom"].amounts[severity - 1] ** sign
        assert followed.sum() / mask.sum() == pytest.approx(factor**2, rel=0.08)
        assert np.mean((zoomed > 125) == followed) > 0.998
        turned, followed = degrade(scan, mask, "rotation", severity, seed)
        assert followed.sum() / mask.sum() == pytest.approx(1, rel=0.03)
        assert np.mean((turned > 125) == followed) > 0.998
    rows, columns = np.nonzero(followed)  # 30 degrees: the slope of the longer axis is tan 30
    assert np.polyfit(columns, rows, 1)[0] * -sign > 0.3
    assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 79.5), abs=0.6)


def test_a_shadow_is_dark_below_and_nothing_is_brighter() -> None:
    scan, mask = flat(200, 300, 300)
    shaded = degrade(scan, mask, "shadow", 5, 0)[0].astype(int)
    assert shaded.max() == 200
    shares = [(rows < 150).mean() for rows in np.array_split(shaded, 3)]
    assert shares[2] > shares[0] and 0.1 < shares[2] < 0.6
    assert np.abs(np.diff(shaded, axis=1)).max() < 60  # soft edges


@pytest.mark.parametrize("mask", [LESION, NONE], ids=["lesion", "normal"])
def test_calipers_are_few_bright_pixels_that_grow(mask: NDArray[np.bool_]) -> None:
    changed = [degrade(SCAN, mask, "calipers", severity, 0)[0] != SCAN for severity in SEVERITIES]
    sums = [int(pixels.sum()) for pixels in changed]
    assert sums == sorted(sums) and sums[0] > 10 and sums[-1] < 0.05 * SCAN.size
    drawn = degrade(SCAN, mask, "calipers", 5, 0)[0]
    assert np.all(drawn >= SCAN) and np.median(drawn[changed[-1]]) >= 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SCAN, LESION, "fog", 1, 0), "ladder is 'fog'; expected speckle, gain"),
        ((SCAN, LESION, "blur", 0, 0), "severity is 0; expected 1, 2, 3, 4, 5"),
        ((SCAN, LESION, "blur", 6, 0), "severity is 6"),
        ((SCAN, LESION, "blur", 1, -1), "seed is -1"),
        ((SCAN / 255, LESION, "blur", 1, 0), "expected a uint8 scan and a bool mask"),
        ((SCAN, LESION[1:], "blur", 1, 0), r"found uint8 .* and bool \[399"),
        ((SCAN, LESION.astype(np.uint8), "blur", 1, 0), "and uint8"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        degrade(*arguments)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ shortcut probe


def test_nothing_of_the_lesion_is_left_and_nothing_else_changes() -> None:
    random = np.random.default_rng(0)
    scan = np.rint(random.normal(120, 8, (200, 300))).astype(np.uint8)
    mask = np.zeros_like(scan, dtype=np.bool_)
    mask[80:120, 100:180] = True
    scan[mask] = 20
    filled = without_lesion(scan, mask)
    box = np.zeros_like(mask)
    box[76:124, 92:188] = True  # 10 % of 40 and of 80 on each side
    assert np.array_equal(filled[~box], scan[~box])
    inside = filled[box].astype(float)
    assert inside.mean() == pytest.approx(120, abs=1.5)
    assert inside.std() == pytest.approx(8, rel=0.2)
    assert distance(without_lesion(scan, ~mask & mask), scan) == 0


def test_several_lesions_are_painted_over_as_one_box() -> None:
    mask = NONE.copy()
    mask[50:60, 40:50] = mask[100:110, 200:210] = True
    filled = without_lesion(SCAN, mask)
    assert (filled[60:100, 60:190] != SCAN[60:100, 60:190]).mean() > 0.9
    assert np.array_equal(filled[:40], SCAN[:40])


def test_a_lesion_alone_keeps_its_pixels_on_one_gray_level() -> None:
    alone = lesion_alone(SCAN, LESION)
    assert np.array_equal(alone[LESION], SCAN[LESION])
    levels, counts = np.unique(alone[~LESION], return_counts=True)
    assert levels[counts.argmax()] == round(float(SCAN.mean()))
    assert counts.max() / counts.sum() > 0.8
    assert set(lesion_alone(SCAN, NONE).ravel()) == {round(float(SCAN.mean()))}


# --------------------------------------------------------------------------------------------- properties


@st.composite
def scans(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    low = draw(st.sampled_from([0, 120, 255]))
    scan = random.integers(low, 256, (height, width), dtype=np.uint8)
    kind = draw(st.sampled_from(["empty", "full", "pixels", "box", "corner"]))
    mask = np.full((height, width), kind == "full")
    if kind == "pixels":
        mask = random.random((height, width)) < 0.02
    elif kind == "box":
        mask[5:15, 3:12] = True
    elif kind == "corner":
        mask[-1, -1] = True
    return scan, mask


@settings(max_examples=150, deadline=None)
@given(scans(), st.sampled_from(NAMES), st.sampled_from(SEVERITIES), st.integers(0, 2**40))
def test_every_scan_and_mask_can_be_degraded(
    case: tuple[NDArray[np.uint8], NDArray[np.bool_]], ladder: str, severity: int, seed: int
) -> None:
    scan, mask = case
    changed, followed = degrade(scan, mask, ladder, severity, seed)
    assert (changed.shape, changed.dtype) == (scan.shape, np.uint8)
    assert (followed.shape, followed.dtype) == (scan.shape, np.bool_)
    assert mask.any() or not followed.any()


@settings(max_examples=100, deadline=None)
@given(scans())
def test_every_lesion_can_be_taken_out_and_left_alone(case: tuple[NDArray[np.uint8], NDArray[np.bool_]]) -> None:
    scan, mask = case
    for probe in (without_lesion, lesion_alone):
        changed = probe(scan, mask)
        assert (changed.shape, changed.dtype) == (scan.shape, np.uint8)
        assert np.array_equal(changed, probe(scan, mask))
    assert np.array_equal(lesion_alone(scan, mask)[mask], scan[mask])
    if not mask.any():
        assert np.array_equal(without_lesion(scan, mask), scan)
