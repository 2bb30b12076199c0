"""Boxes around lesions and what is left of a scan, against values counted by hand."""

import numpy as np
import pytest

from busi_lab.data.lesion_cut import lesion_box, lesion_cut

IMAGE = np.arange(80, dtype=np.uint8).reshape(8, 10)


def mask_of(*pixels: tuple[int, int]) -> np.ndarray:  # type: ignore[type-arg]
    mask = np.zeros((8, 10), dtype=bool)
    mask[tuple(zip(*pixels, strict=True))] = True
    return mask


@pytest.mark.parametrize(
    ("margin", "rows", "columns"),
    [
        (0.0, (2, 6), (3, 5)),
        (0.25, (1, 7), (3, 5)),  # a quarter of four rows, and half a column, which rounds to none
        (0.5, (0, 8), (2, 6)),
        (2.0, (0, 8), (0, 9)),  # the scan ends there
    ],
)
def test_a_box_holds_all_lesions_and_its_margin(margin: float, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    box = lesion_box(mask_of((2, 3), (5, 4)), margin)
    assert box == (slice(*rows), slice(*columns))


def test_a_scan_is_cut_or_blackened_and_stays_whole_without_a_lesion() -> None:
    mask = mask_of((2, 3), (3, 4))
    assert lesion_cut(IMAGE, mask, "crop", 0.0).tolist() == [[23, 24], [33, 34]]
    black = lesion_cut(IMAGE, mask, "mask", 5.0)
    assert black.dtype == np.uint8 and black.shape == IMAGE.shape
    assert {tuple(place): int(black[tuple(place)]) for place in np.argwhere(black)} == {(2, 3): 23, (3, 4): 34}
    for mode in ("crop", "mask"):
        assert np.array_equal(lesion_cut(IMAGE, np.zeros_like(mask), mode, 0.1), IMAGE)
