"""How a number becomes text: the only place. Nothing reads a number back from here; cells carry their values."""

import math
from collections.abc import Sequence
from typing import Any

from busi_lab.plurals import counted as counted

MISSING = "–"  # noqa: RUF001 (an en dash is meant)
"""What a cell without a value shows."""

NOT_A_DEVICE = "Research only. Not a medical device: what it says must not guide the care of anyone."
"""What stands on every report, page and prediction."""

_DIGITS = {"hd95": 1, "hd95_pixels": 1, "hd95_mm": 2}


def number(value: Any) -> float | None:
    """``value`` as a finite number, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def text(value: Any) -> str | None:
    """``value`` on one line, in characters that every UTF-8 file can hold; None where there is none."""
    return None if value is None else " ".join(str(value).encode("utf-8", "replace").decode().split())


def digits_of(metric: str) -> int:
    """Decimals of a metric: three, fewer where it is no fraction of 1."""
    return _DIGITS.get(metric, 3)


def some(names: Sequence[str], most: int = 20) -> str:
    """Names with commas; of very many the first, and how many more."""
    more = [f"{len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def figure(value: float | None, digits: int = 3) -> str:
    """``0.912``; a huge number is shortened, a missing one is a dash."""
    known = number(value)
    if known is None:
        return MISSING
    return f"{known:.{digits}f}" if abs(known) < 1e6 else f"{known:.3g}"


def signed(value: float, digits: int = 3) -> str:
    """``+0.012``."""
    return f"{value:+.{digits}f}"


def ends(low: float, high: float, digits: int = 3, sign: str = "") -> str:
    """Both ends of an interval; in words where there is none."""
    return f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}" if math.isfinite(low) else "no interval"


def deviation(value: float, digits: int, over: str) -> str:
    """A standard deviation over folds or seeds."""
    return f"± {value:.{digits}f} over {over}"


def p_value(value: float) -> str:
    """A p; a dash where nothing was tested."""
    if math.isnan(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent(share: float, digits: int = 1) -> str:
    """``91.2%``."""
    return f"{share:.{digits}%}"


def published(value: float) -> str:
    """A published figure as printed: two decimals, more where it has more."""
    return f"{value:.2f}" if value == round(value, 2) else f"{value:.4g}"


def short(value: float, digits: int = 3) -> str:
    """So many significant digits."""
    return f"{value:.{digits}g}"


def spanned(values: Sequence[float], digits: int, infinite: str = "") -> str:
    """``0.10 to 0.30``, or one figure where both ends are alike; ``infinite`` stands for an infinite one."""
    shown = dict.fromkeys(infinite if math.isinf(v) else f"{v:.{digits}f}" for v in (min(values), max(values)))
    return " to ".join(shown)


def leak_counts(counts: Sequence[int]) -> str:
    """``43``, or a range where the runs' ``counts`` differ."""
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def leak_share(counts: Sequence[int], images: float) -> str:
    """``of 155 (28 %)``."""
    shares = dict.fromkeys(f"{100 * end / images:.0f}" for end in sorted({min(counts), max(counts)}))
    return f"of {images:g} ({' to '.join(shares)} %)"


def leaks(counts: Sequence[int], images: float | None) -> str:
    """``43 of 155 (28 %)``; without a share where ``images`` is unknown."""
    return f"{leak_counts(counts)} {leak_share(counts, images)}" if images else leak_counts(counts)


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def epoch(counted_from_0: Any) -> int | None:
    """An epoch as people count: from 1."""
    known = number(counted_from_0)
    return None if known is None else int(known) + 1


def shortened(label: str, length: int) -> str:
    """``label`` with its middle cut out where it is longer than ``length`` characters."""
    half = (length - 1) // 2
    return label if len(label) <= length else f"{label[:half]}…{label[-half:]}"


def about(share: float) -> str:
    """A share in numbers that one can picture: ``about 1 of 8``, ``about 9 of 10``; ``all`` and ``no``, too."""
    if share in (0, 1):
        return "all" if share else "no"
    if share < 0.35:
        return f"about 1 of {round(1 / share)}"
    for whole in (10, 20, 50, 100):
        if (part := round(share * whole)) < whole:
            return f"about {part} of {whole}"
    return "nearly all"
