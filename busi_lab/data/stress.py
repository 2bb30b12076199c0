"""Ladders of five severities that make a scan harder to read, and scans with or without their lesion.

All work at the scan's own resolution, with amounts relative to its size, so that a severity means the same for
every scan. A displayed scan is taken to be log-compressed over 60 decibels, a common setting: one decibel is 4.25
gray levels, and a factor on the echo's amplitude is a sum on the display. There black stays black, because outside
the sector there is no echo to amplify. Severity 1 is hardly visible, 5 extreme but still met in practice.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.data.scan import Gray, Mask

Levels = NDArray[np.float32]
Scanned = tuple[Gray, Mask]

SEVERITIES = (1, 2, 3, 4, 5)

_LEVELS_PER_DECIBEL = 255 / 60
_FAINT = 16  # gray levels; below, a change fades out towards black
_RAYLEIGH_DECIBELS = 5.57  # standard deviation of a Rayleigh amplitude on a decibel scale
_BOX_MARGIN = 0.1  # of the sides of the lesion's box
_GRAIN = 0.015  # of the shorter side: coarser structures are tissue, not grain
_BORDER = 0.01  # of the shorter side: how far the lesion's surroundings stay in :func:`lesion_alone`


@dataclass(frozen=True)
class Ladder:
    """One way to make a scan harder to read.

    Attributes:
        change: what it imitates.
        unit: of the amounts.
        amounts: one for each of :data:`SEVERITIES`.
        apply: scan, mask, amount, seed -> scan, mask.
    """

    change: str
    unit: str
    amounts: tuple[float, float, float, float, float]
    apply: Callable[[Gray, Mask, float, int], Scanned]


def degrade(image: Gray, mask: Mask, ladder: str, severity: int, seed: int) -> Scanned:
    """Make a scan harder to read; the same arguments give the same result.

    What is random does not depend on the severity: the same shadow gets darker, the same grain stronger.

    Args:
        image: uint8 ``[H, W]``; not changed.
        mask: bool ``[H, W]``, its lesion; follows zoom and rotation.
        ladder: a name in :data:`LADDERS`.
        severity: one of :data:`SEVERITIES`.
        seed: 0 or greater, one per scan; even and odd choose between brighter and darker, nearer and farther, left
            and right.

    Raises:
        ValueError: unknown ladder or severity, a negative seed, or arrays of another kind.
    """
    _check(image, mask)
    if ladder not in LADDERS:
        raise ValueError(f"ladder is {ladder!r}; expected {', '.join(LADDERS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; expected {', '.join(map(str, SEVERITIES))}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    step = LADDERS[ladder]
    return step.apply(image, mask, step.amounts[severity - 1], seed)


def without_lesion(image: Gray, mask: Mask) -> Gray:
    """The scan with its lesion painted over, for asking what a model sees beside it.

    The box round all lesions, grown by 10 % of its sides on each of them, is filled with the mean gray level of the
    ring of that width round it and noise of the ring's spread and grain. A scan without lesion stays as it is.

    Raises:
        ValueError: arrays of another kind than uint8 and bool ``[H, W]``.
    """
    _check(image, mask)
    filled: Gray = image.copy()
    if not mask.any():
        return filled
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    margins = max(2, round(_BOX_MARGIN * height)), max(2, round(_BOX_MARGIN * width))
    box, outer = (
        tuple(
            slice(max(0, start - times * margin), start + length + times * margin)
            for start, length, margin in zip((top, left), (height, width), margins, strict=True)
        )
        for times in (1, 2)
    )
    ring = np.zeros_like(mask)
    ring[outer] = True
    ring[box] = False
    if not ring.any():  # the lesion fills the scan
        ring[:] = True
    noise = _noise_like(image, ring)[box]
    filled[box] = _to_gray(image[ring].mean() + noise)
    return filled


def lesion_alone(image: Gray, mask: Mask) -> Gray:
    """The scan's lesion, with a narrow border, on the scan's mean gray level.

    Raises:
        ValueError: arrays of another kind than uint8 and bool ``[H, W]``.
    """
    _check(image, mask)
    radius = max(1, round(_BORDER * min(image.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    kept = cv2.dilate(mask.astype(np.uint8), disc) > 0
    return np.asarray(np.where(kept, image, _to_gray(image.mean())))


def _check(image: Gray, mask: Mask) -> None:
    if image.ndim != 2 or image.dtype != np.uint8 or mask.shape != image.shape or mask.dtype != np.bool_:
        raise ValueError(
            f"expected a uint8 scan and a bool mask [H, W], found {image.dtype} {list(image.shape)} and "
            f"{mask.dtype} {list(mask.shape)}"
        )


def _to_gray(levels: "Levels | float") -> Gray:
    return np.asarray(np.rint(np.clip(levels, 0, 255)), dtype=np.uint8)


def _add_decibels(image: Gray, decibels: "Levels | float") -> Gray:
    """The display after the echo was amplified; black stays black."""
    echo = np.minimum(image.astype(np.float32) / _FAINT, 1)
    return _to_gray(image + decibels * np.float32(_LEVELS_PER_DECIBEL) * echo)


def _blur(levels: Levels, sigma_x: float, sigma_y: float) -> Levels:
    blurred = cv2.GaussianBlur(levels, (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32)


def _noise_like(image: Gray, where: Mask) -> Levels:
    """Gaussian noise ``[H, W]`` with the spread and the grain of part of a scan, about its local mean.

    The correlation between neighbours, r, tells the blur of white noise: r = exp(-1 / (4 sigma ** 2)).
    """
    levels = image.astype(np.float32)
    scale = max(_GRAIN * min(image.shape), 1)
    levels = levels - _blur(levels, scale, scale)
    spread = float(levels[where].std())
    sigmas = []
    for axis in (1, 0):
        pairs = np.take(where, range(1, where.shape[axis]), axis) & np.take(where, range(where.shape[axis] - 1), axis)
        steps = np.diff(levels, axis=axis)[pairs]
        correlation = 1 - float((steps**2).mean()) / (2 * spread**2) if steps.size and spread else 0.0
        sigmas.append(0.5 / np.sqrt(-np.log(np.clip(correlation, 0.02, 0.98))))
    noise = np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)
    noise = _blur(noise, *sigmas)
    return np.asarray((noise - noise.mean()) * (spread / max(float(noise.std()), 1e-6)), dtype=np.float32)


def _sign(seed: int) -> int:
    return -1 if seed % 2 else 1


# ------------------------------------------------------------------------------------------------ ladders


def _speckle(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    """Fully developed speckle has the amplitude of a complex Gaussian field, which is Rayleigh distributed.

    Wagner, Smith, Sandrik and Lopez, IEEE Trans. Sonics Ultrason. 30:156, 1983. It is blurred by the pulse, which is
    wider across than along the beam; here 0.2 and 0.4 % of the shorter side.
    """
    rng = np.random.default_rng(seed)
    sigma = max(0.002 * min(image.shape), 0.4)
    parts = [_blur(rng.standard_normal(image.shape, dtype=np.float32), 2 * sigma, sigma) for _ in range(2)]
    power = parts[0] ** 2 + parts[1] ** 2
    decibels = 10 * np.log10(power / power.mean() + np.float32(1e-4))
    return _add_decibels(image, decibels * np.float32(amount / _RAYLEIGH_DECIBELS)), mask


def _gain(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    return _add_decibels(image, amount * _sign(seed)), mask


def _contrast(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    return _to_gray(128 + amount / 100 * (image.astype(np.float32) - 128)), mask


def _gaussian_blur(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    sigma = amount / 100 * min(image.shape)
    return _to_gray(_blur(image.astype(np.float32), sigma, sigma)), mask


def _jpeg(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    stored = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(amount)])[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE), dtype=np.uint8), mask


def _zoom(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    return _turn(image, mask, 0, amount ** _sign(seed))


def _rotation(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    return _turn(image, mask, amount * _sign(seed), 1)


def _turn(image: Gray, mask: Mask, degrees: float, scale: float) -> Scanned:
    """Rotate and scale round the middle of the lesion, so that it stays in view; of the scan where there is none."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8)) if mask.any() else (0, 0, *image.shape[::-1])
    matrix = cv2.getRotationMatrix2D((left + (width - 1) / 2, top + (height - 1) / 2), degrees, scale)
    size = image.shape[::-1]
    turned = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(mask.astype(np.uint8) * 255, matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(turned, dtype=np.uint8), np.asarray(cover) >= 128


def _shadow(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    """A wedge that starts in the upper 40 % and widens downwards, as behind a rib, a ligament or poor contact."""
    depth = np.linspace(0, 1, image.shape[0], dtype=np.float32)[:, None]
    across = np.linspace(0, 1, image.shape[1], dtype=np.float32)[None, :]
    rng = np.random.default_rng(seed)
    top, centre, drift = rng.uniform(0, 0.4), rng.uniform(0.15, 0.85), rng.uniform(-0.1, 0.1)
    below = np.maximum(depth - top, 0)
    half_width = rng.uniform(0.05, 0.1) + 0.1 * below
    distance = (np.abs(across - centre - drift * below) - half_width) / 0.02
    profile = 0.5 - 0.5 * np.tanh(distance)
    onset = 1 - np.exp(-below / 0.08)
    return _add_decibels(image, (-amount * profile * onset).astype(np.float32)), mask


def _calipers(image: Gray, mask: Mask, amount: float, seed: int) -> Scanned:
    """Measuring marks as scanners burn them in: one pair for every begun 2 % of size, at the ends of the lesion."""
    size = amount / 100 * min(image.shape)
    drawn = image.copy()
    ends = _lesion_ends(mask) if mask.any() else _random_ends(image, np.random.default_rng(seed))
    arm, thick = max(1, round(size / 2)), max(1, round(size / 8))
    font = cv2.FONT_HERSHEY_SIMPLEX
    for number, pair in enumerate(ends[: math.ceil(amount / 2)], start=1):
        start, end = (np.array(point, dtype=np.float64) for point in pair)
        dots = max(2, int(np.linalg.norm(end - start) / max(size / 2, 3)))
        for share in np.linspace(0, 1, dots):
            x, y = np.rint(start + share * (end - start)).astype(int).tolist()
            cv2.circle(drawn, (x, y), thick // 2, 230, -1)
        for point in (start, end):
            x, y = np.rint(point).astype(int).tolist()
            reach = arm if number % 2 else round(arm * 0.7)
            lines = ((reach, 0), (0, reach)) if number % 2 else ((reach, reach), (reach, -reach))
            for dx, dy in lines:
                cv2.line(drawn, (x - dx, y - dy), (x + dx, y + dy), 255, thick)
            cv2.putText(drawn, str(number), (x + arm, y - arm), font, size / 25, 255, thick)
    return drawn, mask


def _lesion_ends(mask: Mask) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Points ``(x, y)``: the ends of the lesion across, down and along its rising diagonal."""
    rows, columns = np.nonzero(mask)
    return [
        tuple((int(columns[at]), int(rows[at])) for at in (np.argmin(order), np.argmax(order)))  # type: ignore[misc]
        for order in (columns, rows, columns - rows)
    ]


def _random_ends(image: Gray, rng: np.random.Generator) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """As :func:`_lesion_ends`, of a lesion that is not there."""
    height, width = image.shape
    middle = rng.uniform(0.3, 0.7, 2) * (width, height)
    half = rng.uniform(0.08, 0.18) * min(height, width)
    found = []
    for dx, dy in ((1.0, 0.1), (0.1, 0.7), (0.7, -0.5)):
        x, y = half * dx, half * dy
        found.append(((int(middle[0] - x), int(middle[1] - y)), (int(middle[0] + x), int(middle[1] + y))))
    return found


LADDERS: Mapping[str, Ladder] = MappingProxyType(
    {
        "speckle": Ladder("more speckle", "dB, standard deviation", (0.7, 1.4, 2.8, 4.2, 5.57), _speckle),
        "gain": Ladder("gain too high or too low", "dB", (1, 3, 6, 10, 15), _gain),
        "contrast": Ladder("less contrast about mid-gray", "% of contrast kept", (92, 80, 65, 45, 25), _contrast),
        "blur": Ladder("out of focus", "% of the shorter side, sigma", (0.15, 0.3, 0.6, 1.1, 2.0), _gaussian_blur),
        "jpeg": Ladder("stored as JPEG, blocks of 8 pixels", "quality", (50, 30, 18, 10, 5), _jpeg),
        "zoom": Ladder("seen nearer or farther", "factor", (1.05, 1.1, 1.2, 1.35, 1.5), _zoom),
        "rotation": Ladder("probe turned", "degrees", (3, 7, 12, 20, 30), _rotation),
        "shadow": Ladder("acoustic shadow", "dB at depth", (2, 5, 10, 18, 30), _shadow),
        "calipers": Ladder("burnt-in measuring marks", "% of the shorter side", (1.5, 2, 3, 4, 5), _calipers),
    }
)
