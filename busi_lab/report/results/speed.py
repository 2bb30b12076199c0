"""How fast and how large networks are, as ``busi-bench`` has measured them, beside how good they are on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from busi_lab.bench_record import Figure, read_bench
from busi_lab.errors import UserError

QUALITIES = ("accuracy", "dice")


@dataclass(frozen=True)
class Speed:
    """A network as one library applies it.

    Attributes:
        label: its experiment, the library and the precision.
        milliseconds: of one scan, median and 95th percentile, medians over the rounds.
        speed: scans a second of ``busi-predict`` with all files written.
        megabytes: of its file.
        parameters: of the network.
        image_size: pixels.
        quality: validation figures, of INT8 those after it.
    """

    label: str
    milliseconds: tuple[float, float]
    speed: float
    megabytes: float
    parameters: int | None
    image_size: int
    quality: Mapping[str, float]


@dataclass(frozen=True)
class Speeds:
    """What one call of ``busi-bench`` has measured of networks, and where, in words."""

    networks: tuple[Speed, ...]
    machine: str


def read_speeds(path: Path) -> Speeds:
    """The networks in a ``bench.json``.

    Raises:
        UserError: it is none, or has no predictions of runs.
    """
    bench = read_bench(path)
    by_label: dict[str, dict[str, Figure]] = {}
    for figure in bench.figures:
        if figure.part == "predict" and ": " in figure.name:
            label, what = figure.name.rsplit(": ", 1)
            by_label.setdefault(label, {})[what] = figure
    try:
        networks = tuple(_speed(label, figures) for label, figures in by_label.items())
    except (KeyError, TypeError, ValueError):
        raise UserError(f"--bench {path}: its predictions are damaged; measure again") from None
    if not networks:
        raise UserError(f"--bench {path}: no predictions in it; call busi-bench predict --run RUN --out DIR")
    cores = bench.machine.get("cores")
    return Speeds(networks, f"{bench.machine.get('processor')}, {cores} cores")


def _speed(label: str, figures: Mapping[str, Figure]) -> Speed:
    times = tuple(_median(figures[f"network, one scan, {name}"]) for name in ("median", "95th percentile"))
    speed = figures["busi-predict, all files written"]
    about: Mapping[str, Any] = speed.about
    quality = {name: float(value) for name in QUALITIES if (value := about["metrics"].get(f"val/{name}")) is not None}
    size = int(about["image_size"])
    return Speed(label, (times[0], times[1]), _median(speed), about["bytes"] / 1e6, about["parameters"], size, quality)


def _median(figure: Figure) -> float:
    return float(np.median(figure.samples))


def unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (cost, quality) those that no other beats in one without losing in the other, by rising cost."""
    kept: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((cost, quality))
    return kept
