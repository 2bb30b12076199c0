"""What ``predictions.csv`` tells beyond the summary: ROC curves and the images that a run got most wrong."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from busi_lab.run_directory import CLASSES, Run

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Class predictions on the test images: ``actual`` and ``predicted`` are indices into ``CLASSES``.

    Shapes are ``[N]``, and ``[N, 3]`` for ``probabilities``.
    """

    images: tuple[str, ...]
    actual: NDArray[np.intp]
    predicted: NDArray[np.intp]
    probabilities: Floats

    def roc(self, name: str) -> "Roc | None":
        """The curve of class ``name`` against the rest; None where the test set lacks either side."""
        column = CLASSES.index(name)
        return roc(self.actual == column, self.probabilities[:, column])


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic from (0, 0) to (1, 1); ``auc`` is the area below it."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    auc: float


@dataclass(frozen=True)
class Mistake:
    """A test image that a run got wrong: its class, and in words what the run made of it."""

    image: str
    label: str
    verdict: str


def read_predictions(run: Run) -> Predictions | None:
    """Class predictions of ``run``; None where it has none, or a file that is damaged."""
    try:
        rows = run.predictions
        if not rows:
            return None
        found = Predictions(
            tuple(row["image"] for row in rows),
            np.array([CLASSES.index(row["label"]) for row in rows]),
            np.array([CLASSES.index(row["prediction"]) for row in rows]),
            np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows]),
        )
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return None
    return found if np.isfinite(found.probabilities).all() else None


def roc(positive: NDArray[np.bool_], score: Floats) -> Roc | None:
    """The curve over all thresholds on ``score [N]``; images with equal scores share a threshold.

    The area is exact: trapezoids, which give tied pairs half credit as the Mann-Whitney statistic does.

    Returns:
        The curve; None where ``positive [N]`` holds one value alone.
    """
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.append(0, np.cumsum(positive[order])[last_of_tie])
    alarms = np.append(0, np.cumsum(~positive[order])[last_of_tie])
    true_rate, false_rate = hits / hits[-1], alarms / alarms[-1]
    area = float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))
    return Roc(false_rate, true_rate, area)


def worst_mistakes(run: Run, count: int) -> list[Mistake] | None:
    """Wrong classes, the most confident first; for runs that predict masks alone, the lowest Dice first.

    Returns:
        At most ``count``; None where ``run`` has no readable predictions.
    """
    found = read_predictions(run)
    if found is None:
        return _lowest_dice(run, count)
    confidence = found.probabilities[np.arange(len(found.images)), found.predicted]
    wrong = np.flatnonzero(found.actual != found.predicted)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [
        Mistake(
            found.images[i],
            CLASSES[found.actual[i]],
            f"predicted {CLASSES[found.predicted[i]]}, probability {confidence[i]:.3f}",
        )
        for i in chosen
    ]


def _lowest_dice(run: Run, count: int) -> list[Mistake] | None:
    def dice(row: Mapping[str, str]) -> float:
        try:
            return float(row.get("dice") or "nan")
        except ValueError:
            return math.nan

    try:
        rows = [row for row in run.predictions if math.isfinite(dice(row)) and row.get("image") and row.get("label")]
    except (OSError, ValueError, csv.Error):
        return None
    if not rows:
        return None
    worst = sorted(rows, key=dice)[:count]
    return [Mistake(row["image"], row["label"], f"Dice {dice(row):.3f}") for row in worst]
