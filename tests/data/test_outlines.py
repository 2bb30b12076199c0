"""Masks as polygons and runs, against examples worked out by hand."""

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
def test_runs_give_back_the_mask_and_polygons_do_or_are_none(mask: np.ndarray) -> None:
    assert np.array_equal(decode_runs(encode_runs(mask), *mask.shape), mask)
    if (polygons := find_polygons(mask)) is not None:
        assert np.array_equal(fill_polygons(polygons, *mask.shape), mask)


def test_polygons_hold_their_edges() -> None:
    square = np.zeros((6, 8), np.bool_)
    square[1:4, 2:6] = True
    assert find_polygons(square) == [[2, 1, 2, 3, 5, 3, 5, 1]]
    assert np.array_equal(fill_polygons([[2, 1, 2, 3, 5, 3, 5, 1]], 6, 8), square)
    hole = square.copy()
    hole[2, 3] = False
    assert find_polygons(hole) is None
    assert not fill_polygons([], 6, 8).any()


def test_a_picture_that_is_too_large_is_not_made() -> None:
    with pytest.raises(UnreadableImageError):
        fill_polygons([], 10**6, 10**6)
    with pytest.raises(UnreadableImageError):
        decode_runs([10**12], 10**6, 10**6)
