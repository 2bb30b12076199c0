"""Masks as polygons and as runs of pixels (RLE), as COCO and YOLO have them.

RLE counts pixels column by column, in turn outside and inside, beginning outside. COCO packs these counts into text:
each is, from the fourth on, the difference to the last but one, in groups of five bits, the lowest first, with a sixth
bit where more follow and 48 added to make a letter (``maskApi.c`` of cocoapi).

A polygon here goes through the centres of the outermost pixels of a lesion, which belong to it.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.scan import Mask, check_size


def fill_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The pixels within any of some polygons, and those on their edges.

    Args:
        polygons: each ``x, y, x, y, ...`` in pixels, three corners at least.
        height: rows.
        width: columns.

    Returns:
        bool ``[height, width]``.

    Raises:
        ValueError: a polygon is none, or lies far outside of the picture.
        UnreadableImageError: the picture would be too large.
    """
    check_size(width, height)
    filled = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2 or not np.isfinite(corners).all():
            raise ValueError("a polygon needs the numbers x, y of three corners at least")
        if np.abs(corners).max() > 2 * max(height, width):
            raise ValueError("a polygon lies outside of the picture")
        cv2.fillPoly(filled, [np.rint(corners.reshape(-1, 2)).astype(np.int32)], 1)
    return filled.astype(np.bool_)


def decode_runs(counts: Sequence[int] | str, height: int, width: int) -> Mask:
    """A mask from its runs.

    Args:
        counts: numbers, or COCO's text.
        height: rows.
        width: columns.

    Returns:
        bool ``[height, width]``.

    Raises:
        ValueError: the runs do not add up to the size.
        UnreadableImageError: the picture would be too large.
    """
    check_size(width, height)
    runs = _unpack(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"runs of {sum(runs)} pixels; expected {width} x {height}")
    inside = np.arange(len(runs)) % 2 == 1
    mask: Mask = np.repeat(inside, runs).reshape(width, height).T
    return mask


def encode_runs(mask: Mask) -> list[int]:
    """The runs of a mask ``[H, W]``, as numbers."""
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(run) for run in np.diff(np.concatenate([[0], changes, [mask.size]]))]


def _unpack(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"'{letter}' is no letter of runs")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
        elif shift > 60:
            raise ValueError("a run is longer than any picture")
    return runs


def find_polygons(mask: Mask) -> list[list[int]] | None:
    """The outlines of the areas of a mask ``[H, W]``; None where they do not give exactly this mask.

    That is so for areas with holes, and for those that are one or two pixels wide somewhere.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [[int(number) for number in contour.ravel()] for contour in contours]
    if not all(len(polygon) >= 6 for polygon in polygons):
        return None
    again: NDArray[Any] = fill_polygons(polygons, *mask.shape)
    return polygons if np.array_equal(again, mask) else None
