"""Seeded speckle phantoms in BUSI's folder layout: for the demo, the tests and CI.

They imitate what B-mode breast scans have in common, not a patient: skin, fat with septa, fibroglandular
streaks, fascia and muscle; fully developed speckle (Rayleigh amplitude of a blurred complex Gaussian field)
that widens with depth; attenuation, gain and log compression. Lesions follow the descriptors of the BI-RADS
ultrasound lexicon: benign ones tend to be oval, wider than tall, with a thin capsule and enhancement behind
them; malignant ones irregular, taller than wide, with a halo, spicules and a shadow. The classes overlap on
purpose. A score on phantoms says that the software works, nothing about a model's clinical use.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_lab.classes import BUSI
from busi_lab.data.dataset import DATASET
from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError
from busi_lab.files import new_folder, write_json

Field = NDArray[np.float32]

NOISE_FLOOR = 10 ** (-64 / 20)  # amplitude of the electronics; 0 decibels, amplitude 1, is about white
MIN_SIDE = 48
SIZE_JITTER = 0.15
TWO_LESIONS_FIRST, TWO_LESIONS_EVERY = 20, 50  # image 20, 70, 120, ...: about 2 %, as in BUSI


def generate_phantoms(
    root: Path, counts: Mapping[str, int], seed: int = 0, height: int = 256, width: int = 320, clear: bool = False
) -> Path:
    """Write phantoms as ``root/CLASS/CLASS (N).png`` with ``CLASS (N)_mask.png``, like BUSI.

    An image depends on the seed, its class and its number alone, so that a larger set contains the smaller
    one. Images 20, 70, 120, ... of benign and malignant have two lesions, the second in ``_mask_1.png``.
    ``root`` appears when the last file is written; an interrupted call leaves nothing.

    Args:
        root: folder to create; may exist if empty.
        counts: images per class; classes left out get none.
        seed: 0 or greater.
        height: mean rows of an image, pixels; single images differ by up to 15 %.
        width: mean columns of an image, pixels; single images differ by up to 15 %.
        clear: draw large lesions with the textbook signs of their class and little else, so that a small network
            learns them within seconds; else they are as hard to tell as real ones.

    Raises:
        UserError: ``root`` holds files, or a class, count, seed or size is invalid.
    """
    for label, count in counts.items():
        if label not in BUSI.names:
            raise UserError(f"counts: unknown class {label!r}; expected {', '.join(BUSI.names)}")
        if count < 0:
            raise UserError(f"counts: {label} is {count}; expected 0 or more")
    if seed < 0:
        raise UserError(f"seed is {seed}; expected 0 or more")
    if min(height, width) < MIN_SIDE:
        raise UserError(f"size is {height} x {width}; expected at least {MIN_SIDE} x {MIN_SIDE} pixels")
    with new_folder(root) as folder:
        write_json(folder / DATASET, {"synthetic": True})
        for label in BUSI.names:
            (folder / label).mkdir()
            for number in range(1, counts.get(label, 0) + 1):
                rng = np.random.default_rng([seed, BUSI.names.index(label), number])
                rows, columns = (
                    round(side * rng.uniform(1 - SIZE_JITTER, 1 + SIZE_JITTER)) for side in (height, width)
                )
                lesions = 2 if number % TWO_LESIONS_EVERY == TWO_LESIONS_FIRST else 1
                image, masks = _render(label, rng, rows, columns, lesions, clear)
                _write_png(folder / label / f"{label} ({number}).png", image)
                for order, mask in enumerate(masks or [np.zeros(image.shape, dtype=np.bool_)]):
                    suffix = f"_{order}" if order else ""
                    path = folder / label / f"{label} ({number})_mask{suffix}.png"
                    _write_png(path, mask.astype(np.uint8) * np.uint8(255))
    return root


def make_phantom(label: str, rng: np.random.Generator, height: int, width: int, lesions: int = 1) -> tuple[Gray, Mask]:
    """Draw one phantom.

    Args:
        label: one of BUSI's classes.
        rng: source of everything random.
        height: rows, pixels.
        width: columns, pixels.
        lesions: lesions side by side, disjoint; ignored for ``normal``.

    Returns:
        The scan, ``uint8 [H, W]``, and the union of its lesions, ``bool [H, W]`` (empty for ``normal``).
    """
    image, masks = _render(label, rng, height, width, lesions)
    union = np.zeros(image.shape, dtype=np.bool_)
    for mask in masks:
        union |= mask
    return image, union


def _render(
    label: str, rng: np.random.Generator, height: int, width: int, lesions: int, clear: bool = False
) -> tuple[Gray, list[Mask]]:
    """The scan and one mask per lesion."""
    echo, specular = _tissue(rng, height, width)
    shadows = _shadows(rng, height, width) * np.float32(0.3 if clear else 1)
    echo += shadows
    specular += shadows
    slots = 0 if label == "normal" else lesions
    masks = [_add_lesion(label, rng, echo, specular, slot, slots, clear) for slot in range(slots)]
    return _scan(rng, echo, specular), masks


def _write_png(path: Path, image: Gray) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _tissue(rng: np.random.Generator, height: int, width: int) -> tuple[Field, Field]:
    """Diffuse echo level and specular reflector level of a lesion-free breast, decibels ``[H, W]``."""
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    fat_end = rng.uniform(0.14, 0.34) + 0.05 * _noise(rng, height, width, 0.5, 0.2)
    gland_end = rng.uniform(0.52, 0.80) + 0.012 * _noise(rng, height, width, 0.5, 0.4)
    gland = _step(depth - fat_end, 0.015)
    muscle = _step(depth - gland_end, 0.01)

    lobules = _noise(rng, height, width, 0.11, 0.3)
    fibres = _noise(rng, height, width, 0.03, 0.12)
    islands = _noise(rng, height, width, 0.07, 0.13)
    fat_level = rng.uniform(-37, -31) + 2.0 * np.minimum(lobules, 0.5)
    gland_level = rng.uniform(-30, -22) + 2.5 * fibres - rng.uniform(1, 9) * _step(islands - 0.5, 0.25)
    muscle_level = rng.uniform(-43, -35) + 3.0 * _noise(rng, height, width, 0.012, 0.3)
    flat = fat_level + (gland_level - fat_level) * gland
    flat += (muscle_level - gland_level) * muscle

    patchy = _noise(rng, height, width, 0.1, 0.12)
    septa = _lines(lobules, 1.0) * (1 - gland) * rng.uniform(10, 16)
    streaks = _lines(fibres, 0.7) * gland * (1 - muscle) * rng.uniform(5, 12)
    striae = _lines(_noise(rng, height, width, 0.02, 0.4), 0.6) * muscle * rng.uniform(4, 12)
    fascia = np.exp(-(((depth - gland_end) / 0.005) ** 2)) * rng.uniform(6, 18)
    lines = (septa + streaks + striae + fascia) * (0.6 + 0.6 * np.tanh(patchy))
    mirrors = np.where(lines > 2, flat + lines, -90)

    # Tissue is drawn flat and then bent as one, so that all its layers follow the same slope.
    rows, columns = np.indices((height, width), dtype=np.float32)
    lateral = columns / width - 0.5
    slope = rng.uniform(-0.12, 0.12) + rng.uniform(-0.3, 0.3) * lateral
    bend = slope * lateral + 0.025 * _noise(rng, height, width, 0.5, 0.35)
    rows += (height * bend * _step(depth - 0.1, 0.05)).astype(np.float32)
    echo, specular = (
        cv2.remap(level.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        for level in (flat, mirrors)
    )

    skin = rng.uniform(0.02, 0.035)
    surface = np.exp(-((depth / 0.01) ** 2)) + 0.8 * np.exp(-(((depth - skin) / 0.006) ** 2))
    echo += np.float32(12) * (1 - _step(depth - skin, 0.004))
    np.maximum(specular, -60 + 44 * surface, out=specular)
    return echo, specular


def _shadows(rng: np.random.Generator, height: int, width: int) -> Field:
    """Attenuation with depth and the shadows of ligaments and poor contact, decibels ``[H, W]``, <= 0."""
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    loss = rng.uniform(6, 38) * np.maximum(depth - rng.uniform(0.3, 0.65), 0) / 0.5
    loss = loss * (1 + 0.25 * _noise(rng, height, width, 0.8, 0.2))
    loss += 3 * depth * _noise(rng, height, width, 1.0, 0.06)
    for _ in range(rng.integers(0, 5)):
        top, centre, half_width = rng.uniform(0.1, 0.6), rng.uniform(0, 1), rng.uniform(0.015, 0.07)
        drift = rng.uniform(-0.1, 0.1) * (depth - top)
        profile = np.exp(-(((across - centre - drift) / half_width) ** 2))
        loss += rng.uniform(3, 12) * profile * _step(depth - top, 0.05)
    return np.asarray(-np.maximum(loss, 0), dtype=np.float32)


def _add_lesion(
    label: str, rng: np.random.Generator, echo: Field, specular: Field, slot: int, slots: int, clear: bool = False
) -> Mask:
    """Draw a lesion into ``echo`` and ``specular`` in place, in the given slot of the width; its mask."""
    height, width = echo.shape
    benign = label == "benign"
    aspect = rng.normal(0.68, 0.12) if benign else rng.normal(1.1, 0.2)  # height / width
    aspect = float(np.clip(aspect, 0.45, 1.6))
    smallest = 0.14 if clear else 0.06
    size = min(rng.uniform(smallest, 0.17) * math.sqrt(height * width), 0.3 * width / slots)  # mean radius
    radius_x, radius_y = size / math.sqrt(aspect), size * math.sqrt(aspect)
    reach = 1.3 * max(radius_x, radius_y)
    left, right = slot * width / slots + reach, (slot + 1) * width / slots - reach
    middle = (slot + 0.5) * width / slots
    centre_x = rng.uniform(left, right) if left < right else middle
    centre_y = max(rng.uniform(0.24, 0.52) * height, reach + 0.05 * height)
    tilt = rng.normal(0, 0.2)

    rows, columns = np.indices((height, width), dtype=np.float32)
    dx, dy = columns - np.float32(centre_x), rows - np.float32(centre_y)
    across = (math.cos(tilt) * dx + math.sin(tilt) * dy) / radius_x
    along = (math.cos(tilt) * dy - math.sin(tilt) * dx) / radius_y
    degrees = np.rad2deg(cv2.phase(across, along)).astype(np.intp) % 360
    irregularity = rng.uniform(0.02, 0.08) if benign else rng.uniform(0.05, 0.2)
    outline = 1 + irregularity * _periodic(rng, 2, 3 if benign else 10)
    outside = (cv2.magnitude(across, along) - outline[degrees]) * np.float32(size)  # pixels from the margin
    mask = np.asarray(outside < 0)

    blur = rng.uniform(0.5, 1.5) if benign else rng.uniform(1.5, 4.5)
    inside = 1 - _step(outside, blur * height / 256)
    unevenness = rng.uniform(0, 1.5) if benign else rng.uniform(1.5, 4)
    texture = unevenness * _noise(rng, height, width, 0.05, 0.05)
    cyst = benign and rng.uniform() < 0.3
    level = -58 if cyst else min(echo[mask].mean() - rng.uniform(6, 16), -40) + texture
    if not benign:
        halo = rng.uniform(2, 7) * np.exp(-((outside / (0.35 * size) - 0.6) ** 2) / 0.3)
        spicules = rng.uniform(0, 7) * np.maximum(_periodic(rng, 8, 24), 0)[degrees]
        echo += halo - spicules * np.exp(-np.maximum(outside, 0) / (0.4 * size))
    echo += (level - echo) * inside
    specular += (-90 - specular) * inside
    if benign:
        facing = 0.7 + 0.3 * np.abs(dy) / np.maximum(np.hypot(dx, dy), 1)  # reflects where it faces the probe
        capsule = np.exp(-(((outside - 1.5) / 2) ** 2)) * facing
        np.maximum(specular, -90 + rng.uniform(50, 70) * capsule, out=specular)

    # Sound that crossed the lesion was weakened less or more than beside it, in proportion to its path there.
    behind = float(np.clip(rng.normal(9, 4), -4, 16) if benign else np.clip(rng.normal(-11, 6), -24, 3))
    if clear:
        behind = 14.0 if benign else -20.0
    path = np.cumsum(inside, axis=0, dtype=np.float32) / (2 * radius_y)
    path = cv2.GaussianBlur(path, (0, 0), 0.02 * width, sigmaY=0.5) * (1 - inside)
    fading = np.exp(-np.maximum(dy - radius_y, 0) / (rng.uniform(0.3, 0.9) * height))
    for level_map in (echo, specular):
        level_map += behind * path * (fading if benign else 1)
    return mask


def _scan(rng: np.random.Generator, echo: Field, specular: Field) -> Gray:
    """What the scanner shows of tissue with these levels: speckle, noise, compression, gain."""
    height, width = echo.shape
    scale = max(height / 256, 0.6)  # speckle narrower than a pixel would vanish
    scatter = rng.standard_normal((height, width, 2), dtype=np.float32)
    scatter *= (_amplitude(echo) + np.float32(NOISE_FLOOR))[:, :, None]
    scatter[:, :, 0] += _amplitude(specular)  # in phase: mirrors do not speckle
    axial, lateral = rng.uniform(0.6, 0.8) * scale, rng.uniform(1.0, 1.4) * scale
    near = _point_spread(scatter, axial, lateral)
    far = _point_spread(scatter, axial * 1.2, lateral * 2)
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    amplitude = (1 - share) * cv2.magnitude(near[:, :, 0], near[:, :, 1])
    amplitude += share * cv2.magnitude(far[:, :, 0], far[:, :, 1])
    amplitude = cv2.GaussianBlur(amplitude, (0, 0), rng.uniform(0.6, 1.3) * scale)  # speckle reduction
    level = 20 * np.log10(amplitude) + np.float32(rng.uniform(-6, 5))
    dynamic_range = rng.uniform(48, 60)  # decibels between black and white
    return np.asarray(np.rint(np.clip(level / dynamic_range + 1, 0, 1) * 255), dtype=np.uint8)


def _point_spread(field: Field, axial: float, lateral: float) -> Field:
    """``field`` blurred by a Gaussian pulse (sigmas in pixels) that keeps the power of white noise."""
    blurred = cv2.GaussianBlur(field, (0, 0), lateral, sigmaY=axial)
    return np.asarray(blurred * np.float32(math.sqrt(4 * math.pi * axial * lateral)))


def _amplitude(level: Field) -> Field:
    """Decibels as amplitude."""
    return np.asarray(np.exp(level * np.float32(math.log(10) / 20)), dtype=np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, cell_y: float, cell_x: float) -> Field:
    """Smooth noise ``[H, W]``, about unit variance; cells are fractions of the height and the width."""
    grid = rng.standard_normal((math.ceil(1 / cell_y) + 3, math.ceil(1 / cell_x) + 3), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(1.3))


def _lines(field: Field, half_width: float) -> Field:
    """Zero crossings of ``field``, ``half_width`` in pixels: 1 where level, 0 where upright or absent."""
    down = cv2.Sobel(field, -1, 0, 1, scale=0.125)
    slope = cv2.magnitude(cv2.Sobel(field, -1, 1, 0, scale=0.125), down) + np.float32(1e-3)
    return np.asarray(np.exp(-((field / (half_width * slope)) ** 2)) * (down / slope) ** 2, dtype=np.float32)


def _periodic(rng: np.random.Generator, lowest: int, highest: int) -> Field:
    """Smooth noise over 360 degrees, unit variance, of harmonics ``lowest`` to ``highest``."""
    angle = np.linspace(0, 2 * math.pi, 360, endpoint=False)[:, None]
    order = np.arange(lowest, highest + 1)
    phase = rng.uniform(0, 2 * math.pi, order.size)
    waves = rng.standard_normal(order.size) / order * np.sin(order * angle + phase)
    total = waves.sum(axis=1)
    return np.asarray(total / total.std(), dtype=np.float32)


def _step(distance: NDArray[np.float32], softness: float) -> Field:
    """0 where ``distance`` is negative, 1 where positive, over a ramp of ``softness`` on either side."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / np.float32(softness)), dtype=np.float32)
