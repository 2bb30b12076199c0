"""What a mask file means: which of its pixels are lesion.

Any pixel that is not background is lesion, unless its value looks like a soft edge or like the noise of JPEG:

- A file without a value above 32 numbers its lesions: all values but 0 are lesion.
- Else the largest value is lesion, and so is every gray value that fills an area (:mod:`busi_lab.data.levels`), but
  for the lowest, which is the background. The limit between background and lesion is half of the largest value, or
  half-way between the background and a lower level of lesions. Small areas of one lower value, apart from any other
  lesion, are lesion as well.
- Colours count by their distance from the background, so that dark blue is as much lesion as white. The background is
  black or, in a file without black, the colour of most of the border.
- Where all pixels have one colour and differ in their transparency alone, what is not transparent is lesion.

``lesion_values`` chooses instead: each pixel belongs to the nearest level of its file, and is lesion where that is one
of the chosen values.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from busi_lab.data.levels import (
    NEAR,
    NUMBERED,
    Level,
    Values,
    colour_background,
    colour_levels,
    distance,
    gap,
    gray_levels,
    is_colourful,
    unit_of,
)
from busi_lab.data.reading import read_values
from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError

_NOISE = 20  # of 255: the brightest that a small area apart from lesions may be without being looked at
_DOT = 5  # pixels of the smallest area apart from lesions
_COLOUR = re.compile("#[0-9a-f]{6}")


def lesion_value_names(values: Sequence[int | str] | None, key: str = "data.lesion_values") -> tuple[str, ...]:
    """Chosen values as texts: ``120``, or ``#0000ff`` for a colour.

    Raises:
        UserError: one is neither a gray value nor a colour; ``key`` is named.
    """
    names = tuple(str(value).strip().lower() for value in values or ())
    for name in names:
        if not (_COLOUR.fullmatch(name) or (re.fullmatch("[0-9]{1,5}", name) and int(name) < 1 << 16)):
            raise UserError(
                f"{key}: {name!r} is no value of a mask; expected gray values as 120, or colours as #0000ff"
            )
    return tuple(str(int(name)) if name.isdecimal() else name for name in names)


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask file that has been read.

    Attributes:
        values: what is stored, gray ``[H, W]`` or colours ``[H, W, 3]``.
        chosen: names of the values that are lesion; empty where the file itself tells.
    """

    values: Values
    chosen: tuple[str, ...] = ()

    @cached_property
    def colourful(self) -> bool:
        """Whether the file holds colours."""
        return is_colourful(self.values)

    @cached_property
    def gray(self) -> Values:
        """Gray values as stored, whole numbers ``[H, W]``; colours as luminance."""
        if self.values.ndim == 2:
            return self.values
        return luminance(self.values)

    @cached_property
    def _gray_levels(self) -> list[Level]:
        return gray_levels(self.gray)

    @cached_property
    def background(self) -> tuple[int, ...]:
        """The level of what is no lesion."""
        if self.colourful:
            return colour_background(self.values)
        found, largest = self._gray_levels, self.gray.max(initial=0)
        if largest > NUMBERED and found and found[0].value[0] <= largest / 2:
            return found[0].value
        return (0,)

    @cached_property
    def levels(self) -> list[Level]:
        """What fills areas and is no background."""
        found = colour_levels(self.values) if self.colourful else self._gray_levels
        near = NEAR if self.colourful else 0
        return [level for level in found if gap(level.value, self.background) > near]

    @cached_property
    def lesion(self) -> Mask:
        """Bool ``[H, W]``."""
        if self.chosen:
            return self._nearest_is_chosen()
        if self.colourful:
            apart = distance(self.values, self.background)
            return _lesion(apart, 0, gray_levels(apart))
        return _lesion(self.gray, self.background[0], self._gray_levels)

    def _nearest_is_chosen(self) -> Mask:
        values = self.values if self.colourful else self.gray
        channels = 3 if self.colourful else 1
        chosen = [level for name in self.chosen if (level := _as_level(name, channels))]
        found = [level.value for level in self.levels]
        # Beside a chosen 120, the noisy 121 of a JPEG file is no other level; 1, 2 and 3 of a numbered file are.
        strangers = [level for level in chosen if level not in (*found, self.background)]
        near = NEAR * (1 if self.colourful else unit_of(values))
        others = [
            level
            for level in (self.background, *found)
            if level not in chosen
            and (level == self.background or all(gap(level, stranger) > near for stranger in strangers))
        ]
        apart = np.full(values.shape[:2], np.iinfo(np.int32).max)
        for level in others:
            apart = np.minimum(apart, distance(values, level))
        lesion = np.zeros(apart.shape, np.bool_)
        for level in chosen:
            lesion |= distance(values, level) < apart
        return lesion


def luminance(colours: Values) -> Gray:
    """ITU-R 601, as Pillow rounds it, uint8 ``[H, W]``."""
    weighted = colours.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
    gray: Gray = (weighted >> 16).astype(np.uint8)
    return gray


def _as_level(name: str, channels: int) -> tuple[int, ...] | None:
    """A chosen value as a level of a file; None where a gray file cannot hold that colour."""
    level = tuple(bytes.fromhex(name[1:])) if name.startswith("#") else (int(name),) * channels
    if len(level) == channels:
        return level
    return level[:1] if len(set(level)) == 1 else None


def _lesion(values: Values, background: int, found: Sequence[Level]) -> Mask:
    """The lesion of gray values ``[H, W]``, or of distances from the background, with their levels."""
    largest = values.max(initial=0)
    if largest <= NUMBERED:
        return np.asarray(values > 0)
    levels = [level.value[0] for level in found if level.value[0] > background]
    limit = largest / 2
    if levels and (len(levels) > 1 or levels[0] <= limit):
        limit = min(limit, (background + levels[0]) / 2)
    lesion = np.asarray(values > limit)
    for dot in _dots(values, lesion, background):
        lesion |= dot
    return lesion


def _dots(values: Values, lesion: Mask, background: int) -> list[Mask]:
    """Small areas of one value that stand apart from every lesion."""
    bright = values > background + _NOISE * unit_of(values)
    if not (bright & ~lesion).any():
        return []
    count, numbers = cv2.connectedComponents(bright.astype(np.uint8), connectivity=8)
    touched = set(np.unique(numbers[lesion]).tolist())
    dots = []
    for number in range(1, count):
        if number in touched:
            continue
        area = numbers == number
        inside = values[area]
        if len(inside) >= _DOT and np.unique(inside, return_counts=True)[1].max() >= 0.8 * len(inside):
            dots.append(area)
    return dots


def read_mask_file(path: Path, lesion_values: tuple[str, ...] = ()) -> MaskFile:
    """Read one mask file with all that its values tell.

    Raises:
        UnreadableImageError: as :func:`busi_lab.data.reading.read_image`.
    """
    return MaskFile(read_values(path), lesion_values)


def read_mask(path: Path, lesion_values: tuple[str, ...] = ()) -> Mask:
    """Read one mask file.

    Args:
        path: of a 1-bit, gray, palette or colour image.
        lesion_values: what is lesion, as :func:`lesion_value_names` gives it; empty where the file itself tells.

    Returns:
        bool ``[H, W]``, true where there is lesion.

    Raises:
        UnreadableImageError: as :func:`busi_lab.data.reading.read_image`.
    """
    return read_mask_file(path, lesion_values).lesion
