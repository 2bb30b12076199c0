"""What is measured of a lesion mask: area, box and longest diameter of each part, and how sure the network is of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.scan import Mask, Region, spacing_of
from busi_lab.data.spacing import Spacing


@dataclass(frozen=True)
class Lesion:
    """One connected part of a mask.

    Attributes:
        area_pixels: its pixels.
        area_mm2: its area; None without pixel spacing, and where it lies outside the regions in which that holds.
        bounding_box: left, top, width, height, pixels.
        longest_diameter_pixels: largest distance of two corners of its pixels, so the outer edge is included.
        longest_diameter_mm: the largest such distance in millimetres; None as ``area_mm2``.
        confidence: mean lesion probability of its pixels, or, where :attr:`Prediction.confidence_calibrated` says so,
            the probability that the outline is right; None without lesion probabilities.
    """

    area_pixels: int
    area_mm2: float | None
    bounding_box: tuple[int, int, int, int]
    longest_diameter_pixels: float
    longest_diameter_mm: float | None
    confidence: float | None = None


def measure(
    mask: Mask,
    spacing: Spacing | None = None,
    regions: Sequence[Region] = (),
    probabilities: NDArray[np.float32] | None = None,
) -> tuple[Lesion, ...]:
    """Measure the 8-connected parts of a mask bool ``[H, W]``, largest first.

    Args:
        mask: of a scan.
        spacing: of the scan.
        regions: of the scan; with them a spacing counts only inside its region.
        probabilities: of a lesion, ``[H, W]``; None where the mask comes from something else.
    """
    values = mask.astype(np.uint8)
    left, top, width, height = cv2.boundingRect(values)  # outside there is nothing to look for
    inside = np.ascontiguousarray(values[top : top + height, left : left + width])
    if not inside.size:
        return ()
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    found = []
    for number in sorted(range(1, count), key=lambda number: -boxes[number][cv2.CC_STAT_AREA]):
        x, y, w, h, area = boxes[number].tolist()
        part = parts[y : y + h, x : x + w] == number
        box = (left + x, top + y, w, h)
        lesion = _measure_part(part, box, area, _spacing(part, box, mask.shape, spacing, regions))
        if probabilities is not None:
            there = probabilities[top + y : top + y + h, left + x : left + x + w]
            lesion = replace(lesion, confidence=float(there[part].mean(dtype=np.float64)))
        found.append(lesion)
    return tuple(found)


def _spacing(
    part: Mask,
    box: tuple[int, int, int, int],
    shape: tuple[int, ...],
    spacing: Spacing | None,
    regions: Sequence[Region],
) -> Spacing | None:
    """The spacing that holds for a part, bool ``[h, w]`` at its box."""
    if not regions:
        return spacing
    left, top, width, height = box
    whole = np.zeros(shape, bool)
    whole[top : top + height, left : left + width] = part
    return spacing_of(whole, spacing, regions)


def _measure_part(part: Mask, box: tuple[int, int, int, int], area: int, spacing: Spacing | None) -> Lesion:
    """Measure a part, bool ``[h, w]`` at its box."""
    left, top, width, height = box
    rows = np.arange(height)  # a connected part has pixels in every row of its box; its hull needs their ends alone
    ends = np.concatenate([part.argmax(axis=1), width - part[:, ::-1].argmax(axis=1)])
    corners = np.concatenate([np.stack([ends, np.tile(rows + y, 2)], axis=1) for y in (0, 1)])
    hull = cv2.convexHull(corners.astype(np.int32))[:, 0].astype(np.float64)

    def longest(points: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(points[:, None] - points[None], axis=2).max())

    return Lesion(
        area,
        None if spacing is None else area * spacing[0] * spacing[1],
        (left, top, width, height),
        longest(hull),
        None if spacing is None else longest(hull * np.array([spacing[1], spacing[0]])),
    )
