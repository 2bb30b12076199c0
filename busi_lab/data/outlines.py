"""Masks as polygons and as runs of pixels (RLE), as COCO and YOLO have them.

RLE counts pixels column by column, in turn outside and inside, beginning outside. COCO packs these counts into text:
each is, from the fourth on, the difference to the last but one, in groups of five bits, the lowest first, with a sixth
bit where more follow and 48 added to make a letter (``maskApi.c`` of cocoapi).

Corners of polygons count from the outer edge of the first pixel, whose centre is at 0.5, and a pixel is inside where
its centre is: so do cocoapi and YOLO.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.scan import Mask, check_size


def fill_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The pixels whose centre lies within any of some polygons.

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
    filled = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2 or not np.isfinite(corners).all():
            raise ValueError("a polygon needs the numbers x, y of three corners at least")
        if np.abs(corners).max() > 2 * max(height, width):
            raise ValueError("a polygon lies outside of the picture")
        filled |= _fill(corners.reshape(-1, 2), height, width)
    return filled


def _fill(corners: NDArray[np.float64], height: int, width: int) -> Mask:
    """One polygon: in each row, pixels are inside behind an odd number of edges (even-odd rule)."""
    turns = np.zeros((height, width + 1), np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in sorted((y0, y1)))
        rows = np.arange(first, last)  # whose centres the edge crosses
        if len(rows):
            crossed = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            turns[rows, np.clip(np.ceil(crossed - 0.5), 0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(turns, axis=1)[:, :width]


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
    """The outlines of the areas of a mask ``[H, W]``, along the edges of pixels; None where there are holes.

    The outline of the mask at twice its size goes through quarters of pixels, and each lies at one edge of its pixel.
    """
    twice = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        corners = (contour[:, 0] + 1) // 2
        kept = (corners != np.roll(corners, 1, axis=0)).any(axis=1)
        polygons.append([int(number) for number in corners[kept].ravel()])
    return polygons if np.array_equal(fill_polygons(polygons, *mask.shape), mask) else None
