"""The pixel spacing that a person writes down -> millimetres."""

import math
import re

Spacing = tuple[float, float]
"""Millimetres between rows, and between columns."""

_SMALLEST, _LARGEST = 0.001, 10.0  # mm per pixel; micrometres, or pixels per mm, are taken for nothing else
_SIGNS = re.compile(r"\s*[x\u00d7*;|\\/]\s*|,\s+|\s+")


def parse_spacing(text: str) -> Spacing:
    """Read ``0.1``, or ``0.1x0.12`` for rows and columns; a decimal comma is one.

    Raises:
        ValueError: it is no spacing; says what was expected.
    """
    parts = _SIGNS.split(re.sub(r"mm$", "", text.strip().strip("[]()").strip()).strip())
    try:
        numbers = [float(part.replace(",", ".")) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(math.isfinite(n) and _SMALLEST <= n <= _LARGEST for n in numbers):
        raise ValueError(
            f"spacing '{text}': expected millimetres per pixel from {_SMALLEST:g} to {_LARGEST:g}, as 0.1, or of rows "
            "and columns, as 0.1x0.12"
        )
    return numbers[0], numbers[-1]
