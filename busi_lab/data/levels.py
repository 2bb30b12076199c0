"""The gray values or colours that fill areas of a mask file, told from soft edges and from the noise of JPEG.

A level is a value whose pixels form an area: at least half of them lie in blocks of 3 x 3 pixels of nearly that value,
and values a little below or above it are rare. Soft edges are thin, wide ramps have as many pixels of every value, and
the noise of JPEG (of a quality of 20 and above, measured with ellipses) forms no areas.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.scan import Mask

Values = NDArray[Any]
"""What a mask file stores: whole numbers ``[H, W]``, or colours uint8 ``[H, W, 3]``."""

NUMBERED = 32  # the largest value of a mask whose lesions are numbered
NEAR = 10  # of 255: levels so near are one

_BAND = 3  # of 255, to both sides
_SPIKE = 4  # a level has so many times the pixels of the values beside its band
_SMALLEST = 9  # pixels: a block of 3 x 3
_COLOURFUL = 48  # difference of channels that the noise of JPEG does not make
_DARK = 20  # of 255: the brightest that black is in a noisy file; with colours, its noise forms areas of up to that
_CLEAN = 16  # values of a file without noise
_MOST_COLOURS = 64  # that are looked at, the most frequent first


@dataclass(frozen=True)
class Level:
    """A value that fills an area.

    Attributes:
        value: a gray value as ``(120,)``, or red, green and blue.
        pixels: that have nearly this value.
    """

    value: tuple[int, ...]
    pixels: int

    def __str__(self) -> str:
        return str(self.value[0]) if len(self.value) == 1 else "#{:02x}{:02x}{:02x}".format(*self.value)


def unit_of(values: Values) -> float:
    """A 255th of the range of gray values, at least 1."""
    return max(1.0, float(values.max(initial=0)) / 255)


def is_colourful(values: Values) -> bool:
    """Whether a file of three channels holds colours, and not gray with noise."""
    if values.ndim == 2:
        return False
    spread = _brightest(values) - np.minimum(np.minimum(values[..., 0], values[..., 1]), values[..., 2])
    return bool((spread > _COLOURFUL).sum() >= 5)


def _brightest(values: Values) -> Values:
    """The largest channel of each pixel, ``[H, W]``; a reduction over the short last axis takes ten times as long."""
    brightest: Values = np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])
    return brightest


def count_values(values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct whole numbers in rising order, and how many pixels have each."""
    counts = np.bincount(values.ravel())
    distinct = np.flatnonzero(counts)
    return distinct, counts[distinct]


def gray_levels(values: Values) -> list[Level]:
    """The levels of gray values ``[H, W]`` in rising order, the background among them.

    In a file without a value above 32 every value is a level: lesions are taken to be numbered.
    """
    distinct, counts = count_values(values)
    if len(distinct) <= 2 or distinct[-1] <= NUMBERED:
        return [Level((int(value),), int(count)) for value, count in zip(distinct, counts, strict=True)]
    unit = unit_of(values)
    found: list[Level] = []
    modes: list[int] = []  # how often the exact value of each is there
    for value, count in zip(distinct, counts, strict=True):
        noise = len(distinct) > _CLEAN and 0 < value - distinct[0] <= _DARK * unit
        if count < _SMALLEST or noise:
            continue
        below, above = (value - _BAND * unit, value + _BAND * unit)
        if value > distinct[0]:  # the lowest value, mostly black, is no part of a band above it
            below = max(below, distinct[0] + 1)
        inside = counts[(distinct >= below) & (distinct <= above)].sum()
        rest = np.abs(distinct - value) <= NEAR * unit
        beside = max(
            counts[rest & (distinct < below) & (distinct > distinct[0])].sum(), counts[rest & (distinct > above)].sum()
        )
        if inside < _SPIKE * beside or not _fills_areas((values >= below) & (values <= above)):
            continue
        level = Level((int(value),), int(inside))
        if found and value - found[-1].value[0] <= _BAND * unit and found[-1].value[0] != distinct[0]:
            if count > modes[-1]:  # the same level, whose most frequent value names it
                found[-1], modes[-1] = level, count
            continue
        found.append(level)
        modes.append(count)
    return found


def colour_levels(values: Values) -> list[Level]:
    """The levels of colours ``[H, W, 3]``, the most frequent first, the background among them."""
    found: list[Level] = []
    for colour in _frequent(values):
        if any(gap(colour, level.value) <= 2 * NEAR for level in found):
            continue
        close = distance(values, colour) <= NEAR
        if _fills_areas(close):
            found.append(Level(colour, int(close.sum())))
    return found


def _frequent(values: Values) -> Iterator[tuple[int, int, int]]:
    packed = values[..., 0].astype(np.int32) << 16 | values[..., 1].astype(np.int32) << 8 | values[..., 2]
    distinct, counts = np.unique(packed, return_counts=True)
    for number in np.argsort(-counts, kind="stable")[:_MOST_COLOURS]:
        if counts[number] >= _SMALLEST:
            value = int(distinct[number])
            yield value >> 16, value >> 8 & 255, value & 255


def colour_background(values: Values) -> tuple[int, int, int]:
    """The colour of what is no lesion: black where there is some, else the colour of most of the border."""
    black = _brightest(values) <= _DARK
    if black.mean() >= 0.05:
        return 0, 0, 0
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    colours, counts = np.unique(border, axis=0, return_counts=True)
    red, green, blue = (int(part) for part in colours[counts.argmax()])
    near = np.abs(border.astype(np.int16) - (red, green, blue)).max(axis=1) <= NEAR
    return (red, green, blue) if near.mean() > 0.5 else (0, 0, 0)


def distance(values: Values, level: tuple[int, ...]) -> Values:
    """How far each pixel is from a level: the largest difference of a channel, ``[H, W]``."""
    apart: Values = np.abs(values.astype(np.int32) - (level[0] if values.ndim == 2 else level))
    return apart if values.ndim == 2 else _brightest(apart)


def gap(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The same between two levels."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _fills_areas(mask: Mask) -> bool:
    """Whether at least half of the pixels lie in blocks of 3 x 3."""
    opened = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return bool(opened.sum() * 2 >= mask.sum() > 0)
