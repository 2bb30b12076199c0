"""Pictures of a scan with what was found in it: outlines, words and heat maps."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

TRUE: Colour = (255, 176, 0)
PREDICTED: Colour = (86, 180, 233)
_SMALLEST = 320  # pixels, the width from which a caption fits
_LARGEST = 4_000_000  # pixels, up to which it is enlarged for that
_DASH = 7  # pixels
_LINE = 255  # the entry of an overlay's palette that has the colour of the outline; the others are gray levels
_PALETTE = [level for gray in range(_LINE) for level in (gray, gray, gray)] + list(PREDICTED)


def outline(
    picture: Image.Image, mask: NDArray[np.bool_], colour: Colour | int, dashed: bool = False, width: int = 2
) -> None:
    """Draw the contours of a mask bool ``[H, W]``, of any size, on ``picture``, whose mode the colour fits."""
    area = resized(mask, (picture.height, picture.width)).astype(np.uint8)
    contours, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    pen = ImageDraw.Draw(picture)
    for contour in contours:
        points = list(map(tuple, contour.reshape(-1, 2).tolist()))
        length = _DASH if dashed else len(points)
        for start in range(0, len(points), 2 * length):
            pen.line([*points, points[0]][start : start + length + 1], fill=colour, width=width)


def resized(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask bool ``[h, w]`` at another size ``[H, W]``, by the nearest pixel."""
    if mask.shape == shape:
        return mask
    nearest: NDArray[np.bool_] = cv2.resize(mask.astype(np.uint8), shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    return nearest


def draw_overlay(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, lines: Sequence[str]) -> Image.Image:
    """The scan with the outline of ``mask`` and, on a strip below that hides no tissue, words.

    Args:
        pixels: uint8 ``[H, W]``.
        mask: bool ``[H, W]``; None for no outline.
        lines: of words, the first one larger.

    Returns:
        Gray levels with a palette, a third of the bytes of RGB: white has the outline's colour, so that scans have 254
        at most. A scan narrower than 320 pixels is enlarged by a whole factor, unless it is so high that the picture
        would grow out of bounds.
    """
    picture = _enlarged(np.minimum(pixels, _LINE - 1))
    if mask is not None and mask.any():
        outline(picture, mask, _LINE, width=max(2, picture.width // 250))
    picture = _captioned(picture, lines)
    picture.putpalette(_PALETTE)
    return picture


def draw_heat(
    pixels: NDArray[np.uint8], heat: NDArray[Any], mask: NDArray[np.bool_] | None, colour: Colour = PREDICTED
) -> Image.Image:
    """The scan under a heat map float ``[h, w]`` of 0 to 1, with the outline of ``mask`` where there is one."""
    picture = Image.fromarray(pixels).convert("RGB")
    values = cv2.resize(heat.astype(np.float32), picture.size, interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    strength = 0.6 * values[..., None]
    blended = np.asarray(picture) * (1 - strength) + colours * strength
    result = Image.fromarray(blended.round().astype(np.uint8))
    if mask is not None and mask.any():
        outline(result, mask, colour, width=max(2, result.width // 250))
    return result


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels)
    factor = min(-(-_SMALLEST // picture.width), max(1, math.isqrt(_LARGEST // (picture.width * picture.height))))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _captioned(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    size = max(13, picture.width // 36)
    fonts = [_font(round(size * (1.3 if i == 0 and len(lines) > 1 else 1))) for i in range(len(lines))]
    heights = [round(font.size * 1.35) for font in fonts if isinstance(font, ImageFont.FreeTypeFont)]
    margin = size // 2
    framed = Image.new("L", (picture.width, picture.height + sum(heights) + margin), 23)
    framed.paste(picture, (0, 0))
    pen, top = ImageDraw.Draw(framed), picture.height + margin // 2
    for line, font, height in zip(lines, fonts, heights, strict=True):
        pen.text((margin, top), line, fill=233, font=font)
        top += height
    return framed


@lru_cache(maxsize=32)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
