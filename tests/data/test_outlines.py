"""Masks as polygons and runs, against examples worked out by hand."""

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies
from hypothesis.extra.numpy import arrays

from busi_lab.data.outlines import decode_runs, encode_runs, fill_polygons, find_polygons
from busi_lab.data.scan import UnreadableImageError

SMALL = np.array([[0, 1, 1], [0, 1, 0]], np.bool_)  # columns: 00, 11, 10


def test_runs_go_down_the_columns_and_begin_outside() -> None:
    assert encode_runs(SMALL) == [2, 3, 1]
    assert encode_runs(~SMALL) == [0, 2, 3, 1]
    assert encode_runs(np.zeros((2, 3), np.bool_)) == [6]
    assert np.array_equal(decode_runs([2, 3, 1], 2, 3), SMALL)
    assert np.array_equal(decode_runs([0, 2, 3, 1], 2, 3), ~SMALL)


def test_packed_runs_are_read_as_cocoapi_writes_them() -> None:
    # From the fourth on, each count is less the last but one: 2, 3, 1, 3 - 3, 5 - 1, 37 - 3, and 34 takes two letters.
    assert np.array_equal(decode_runs("23104R1", 3, 17), decode_runs([2, 3, 1, 3, 5, 37], 3, 17))
    # A fall is negative: 9 - 20 = -11 is 10101 in five bits, the sign among them: 21 + 48 = "E".
    assert np.array_equal(decode_runs("1d04E", 2, 17), decode_runs([1, 20, 4, 9], 2, 17))


@pytest.mark.parametrize("counts", [[1, 2], [7, -1], "\x00", "~", "oooooooooooooooooo"])
def test_runs_that_do_not_fit_are_refused(counts: list[int] | str) -> None:
    with pytest.raises(ValueError):
        decode_runs(counts, 2, 3)


@given(arrays(np.bool_, strategies.tuples(strategies.integers(1, 9), strategies.integers(1, 9))))
def test_runs_give_back_every_mask_and_polygons_those_without_holes(mask: np.ndarray) -> None:
    assert np.array_equal(decode_runs(encode_runs(mask), *mask.shape), mask)
    holes = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)[0] > 2
    polygons = find_polygons(mask)
    assert (polygons is None) == holes
    assert holes or np.array_equal(fill_polygons(polygons or [], *mask.shape), mask)


def test_polygons_run_along_the_edges_of_pixels() -> None:
    square = np.zeros((6, 8), np.bool_)
    square[1:4, 2:6] = True
    assert find_polygons(square) == [[2, 1, 2, 4, 6, 4, 6, 1]]
    assert np.array_equal(fill_polygons([[2, 1, 2, 4, 6, 4, 6, 1]], 6, 8), square)
    assert find_polygons(square[:, 2:]) == [[0, 1, 0, 4, 4, 4, 4, 1]]
    dot = np.zeros((3, 3), np.bool_)
    dot[1, 1] = True
    assert find_polygons(dot) == [[1, 1, 1, 2, 2, 2, 2, 1]]
    angle = square.copy()
    angle[1:3, 2:4] = False
    assert find_polygons(angle) == [[4, 1, 4, 3, 2, 3, 2, 4, 6, 4, 6, 1]]
    hole = square.copy()
    hole[2, 3] = False
    assert find_polygons(hole) is None
    assert not fill_polygons([], 6, 8).any()


def test_a_pixel_is_inside_where_its_centre_is() -> None:
    assert fill_polygons([[0, 0, 4, 0, 0, 4]], 4, 4).sum(axis=1).tolist() == [3, 2, 1, 0]
    assert fill_polygons([[0.6, 0.4, 3.4, 0.4, 3.4, 1.6, 0.6, 1.6]], 4, 4).sum(axis=1).tolist() == [2, 2, 0, 0]
    assert fill_polygons([[-3, -3, 8, -3, 8, 2, -3, 2]], 4, 4).sum(axis=1).tolist() == [4, 4, 0, 0]


def test_a_picture_that_is_too_large_is_not_made() -> None:
    with pytest.raises(UnreadableImageError):
        fill_polygons([], 10**6, 10**6)
    with pytest.raises(UnreadableImageError):
        decode_runs([10**12], 10**6, 10**6)
