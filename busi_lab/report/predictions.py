"""What ``predictions.csv`` tells beyond the summary: classes with ROC curves, masks, and the images worth a look."""

import csv
from collections.abc import Sequence
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
class Masks:
    """Predicted masks on the test images, by their figures alone; all arrays ``[N]``.

    ``dice`` is NaN for images without a lesion; ``lesion`` and ``predicted`` are shares of the judged pixels from
    0 to 1, NaN where the run did not record how many it judged; ``labels`` are names of classes, or
    empty.
    """

    images: tuple[str, ...]
    labels: NDArray[np.str_]
    dice: Floats
    lesion: Floats
    predicted: Floats


@dataclass(frozen=True)
class Example:
    """A test image worth a look: its class, and in words what the run made of it."""

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


def read_masks(run: Run) -> Masks | None:
    """The figures of the masks that ``run`` predicted; None where it has none, or a file that is damaged."""
    try:
        rows = run.predictions
        if not rows or "dice" not in rows[0]:
            return None
        columns = {name: [float(row.get(name) or "nan") for row in rows] for name in _MASK_COLUMNS}
        dice, lesion, predicted, pixels = (np.array(columns[name]) for name in _MASK_COLUMNS)
        images, labels = tuple(row["image"] for row in rows), np.array([row["label"] for row in rows])
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return None
    if not all(images) or not set(labels.tolist()) <= {*CLASSES, ""} or not np.isfinite(dice).any():
        return None
    pixels[pixels <= 0] = np.nan
    return Masks(images, labels, dice, lesion / pixels, predicted / pixels)


_MASK_COLUMNS = ("dice", "lesion_pixels", "predicted_pixels", "pixels")


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


def wrong_classes(found: Predictions, count: int) -> list[Example]:
    """At most ``count`` images with a wrong class, the most confident first."""
    confidence = found.probabilities[np.arange(len(found.images)), found.predicted]
    wrong = np.flatnonzero(found.actual != found.predicted)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [
        Example(
            found.images[i],
            CLASSES[found.actual[i]],
            f"predicted {CLASSES[found.predicted[i]]}, probability {confidence[i]:.3f}",
        )
        for i in chosen
    ]


def dice_examples(found: Masks, worst: int, middle: int = 0, best: int = 0) -> list[Example]:
    """The images with the lowest, the middle and the highest Dice, as many as asked for, each image once."""
    order = np.argsort(found.dice, kind="stable")[: int(np.isfinite(found.dice).sum())]  # NaN comes last
    low, rest = order[:worst], order[worst:]
    high = rest[max(0, len(rest) - best) :][::-1] if best else rest[:0]
    rest = rest[: len(rest) - len(high)]
    start = min(max(0, len(order) // 2 - middle // 2 - len(low)), max(0, len(rest) - middle))
    kinds: Sequence[tuple[str, NDArray[np.intp]]] = (
        ("lowest", low),
        ("median", rest[start : start + middle]),
        ("highest", high),
    )
    return [
        Example(found.images[i], str(found.labels[i]), f"Dice {found.dice[i]:.3f} ({kind})")
        for kind, chosen in kinds
        for i in chosen
    ]


def false_alarms(found: Masks, count: int) -> list[Example]:
    """At most ``count`` normal images with a predicted lesion, the largest first."""
    normal = np.flatnonzero((found.labels == "normal") & (found.predicted > 0))
    chosen = normal[np.argsort(-found.predicted[normal], kind="stable")][:count]
    return [
        Example(found.images[i], "normal", f"{100 * found.predicted[i]:.2g} % of the scan marked as lesion")
        for i in chosen
    ]
