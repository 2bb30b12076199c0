"""Predicted images with their groups, of one run or pooled over folds and seeds, and their figures."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busi_lab.classes import BUSI, Classes
from busi_lab.report.results.statistics import Indices, Roc, class_figures, roc, weighted_mean
from busi_lab.report.results.uncertainty import Bools, Floats, cluster_weights, effective_groups
from busi_lab.run_directory import Run

_HAUSDORFF = ("hd95", "hd95_pixels", "hd95_mm")  # the first by older runs, in another unit
_MASK_COLUMNS = ("dice", "iou", *_HAUSDORFF, "lesion_pixels", "predicted_pixels", "pixels")


@dataclass(frozen=True)
class Cases:
    """Images with what was predicted for them; all arrays ``[N]``, ``probabilities [N, C]``.

    ``actual`` are indices into the names of ``classes``, without classes to predict also -1 for an unknown label.
    ``clusters`` are near-copies or images of one patient; where ``grouped`` is False no run recorded them and each
    image stands alone. ``probabilities`` is None without classes. ``masks`` is empty without masks, else it has
    ``dice, iou, hd95_pixels, hd95_mm, lesion_pixels, predicted_pixels, pixels, true_positive, found`` (``hd95`` in
    place of the former of older runs), NaN where not defined.
    """

    images: NDArray[np.str_]
    clusters: NDArray[np.str_]
    grouped: bool
    actual: Indices
    probabilities: Floats | None
    masks: Mapping[str, Floats]
    classes: Classes = BUSI

    def __len__(self) -> int:
        return len(self.images)

    @property
    def groups(self) -> int:
        """How many clusters there are."""
        return len(set(self.clusters.tolist()))

    def weights(self) -> Floats:
        """The cluster bootstrap of these images, ``[B, N]``; read only, because it is shared."""
        return _weights(tuple(self.clusters.tolist()))

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Test figures under weights ``[B, N]``, ``[B]`` each, by the names that runs give them."""
        return self.class_figures(weights) | self._mask_figures(weights)

    def class_figures(self, weights: Floats) -> dict[str, Floats]:
        """Figures of the classes alone, as :meth:`figures`."""
        if self.probabilities is None:
            return {}
        return class_figures(self.actual, self.probabilities, weights, self.classes)

    def figures_of(self, measure: str, weights: Floats) -> Floats:
        """``accuracy`` or ``dice`` alone, ``[B]``, which costs less than :meth:`figures`."""
        return weighted_mean(self.results(measure), weights)

    def results(self, measure: str) -> Floats:
        """What each image adds to ``accuracy`` (0 or 1) or ``dice``, ``[N]``; NaN where it is not defined."""
        return self.right.astype(np.float64) if measure == "accuracy" else self.masks[measure]

    def sides(self, name: str) -> list[Bools]:
        """The sets of images, ``[N]`` each, that a figure hangs on, such as both sides of a ROC curve."""
        every, classes = np.ones(len(self), bool), self.classes
        held = {name: self.actual == i for i, name in enumerate(classes.names)}
        if name in self.masks:
            return [np.isfinite(self.masks[name])]
        if name == "false_positive_rate":
            return [self.masks["lesion_pixels"] == 0]
        if name.startswith(("accuracy", "dice_pooled", "pixel_accuracy")):
            lesions = np.isin(self.actual, [classes.number(lesion) for lesion in classes.lesions])
            return [every if name in ("accuracy", "dice_pooled", "pixel_accuracy") else lesions]
        if name == classes.auroc_lesions:
            return [held[each] for each in (classes.negative, classes.positive) if each]
        if classes.positive and name.startswith((f"auroc_{classes.positive}", "sensitivity", "specificity")):
            return [held[classes.positive], ~held[classes.positive]]
        present = [side for side in held.values() if side.any()]
        return [side for one in present for side in ((one, ~one) if name == "auroc" else (one,))]

    def groups_of(self, name: str) -> int:
        """How many groups a figure hangs on: those of the smaller of its :meth:`sides`."""
        return min(len(set(self.clusters[side].tolist())) for side in self.sides(name))

    def effective_groups(self, name: str) -> float:
        """As :meth:`groups_of`, but groups of unlike size count for less: see :func:`.effective_groups`."""
        return min(effective_groups(self.clusters, side) for side in self.sides(name))

    @property
    def predicted(self) -> Indices:
        """The most probable class, ``[N]``."""
        assert self.probabilities is not None
        chosen: Indices = self.probabilities.argmax(axis=1)
        return chosen

    @property
    def right(self) -> Bools:
        """Where the most probable class is the actual one."""
        right: Bools = self.predicted == self.actual
        return right

    @property
    def labels(self) -> list[str]:
        """Names of the actual classes; empty where it is not known."""
        return [self.classes.name(number) for number in self.actual.tolist()]

    def share(self, name: str) -> Floats:
        """``lesion_pixels`` or ``predicted_pixels`` as a share of the judged pixels, ``[N]``, NaN where not known."""
        pixels = self.masks["pixels"]
        share: Floats = np.divide(self.masks[name], pixels, out=np.full(len(self), np.nan), where=pixels > 0)
        return share

    def roc(self, name: str) -> Roc | None:
        """The curve of class ``name`` against the rest; None where the images lack either side."""
        assert self.probabilities is not None
        column = self.classes.number(name)
        return roc(self.actual == column, self.probabilities[:, column])

    def counts(self) -> Indices:
        """How many images were predicted as what, ``[actual, predicted]``."""
        counts = np.zeros((len(self.classes.names),) * 2, int)
        np.add.at(counts, (self.actual, self.predicted), 1)
        return counts

    def _mask_figures(self, weights: Floats) -> dict[str, Floats]:
        if not self.masks:
            return {}
        masks = self.masks
        hits, predicted, lesion, pixels = (
            masks[name] for name in ("true_positive", "predicted_pixels", "lesion_pixels", "pixels")
        )
        normal = np.where(lesion == 0, masks["found"], np.nan)
        with np.errstate(invalid="ignore"):
            pooled = np.where(weights @ lesion > 0, weights @ (2 * hits) / (weights @ (predicted + lesion)), np.nan)
            accuracy = weights @ (pixels - predicted - lesion + 2 * hits) / (weights @ pixels)
        return {
            **{name: weighted_mean(masks[name], weights) for name in ("dice", "iou", *_HAUSDORFF)},
            "dice_pooled": pooled,
            "pixel_accuracy": accuracy,
            "false_positive_rate": weighted_mean(normal, weights),
        }

    def take(self, chosen: Indices) -> "Cases":
        """The images at positions ``chosen``."""
        return replace(
            self,
            images=self.images[chosen],
            clusters=self.clusters[chosen],
            actual=self.actual[chosen],
            probabilities=None if self.probabilities is None else self.probabilities[chosen],
            masks={name: values[chosen] for name, values in self.masks.items()},
        )


@lru_cache(maxsize=4)  # models on the same images share their draws
def _weights(clusters: tuple[str, ...]) -> Floats:
    weights = cluster_weights(clusters)
    weights.flags.writeable = False
    return weights


def read_test_cases(run: Run) -> Cases | None:
    """The test images of ``run``; None without a ``predictions.csv`` or where it is damaged."""
    return read_cases(lambda: run.predictions, run.summary.data.roles)


def read_validation_cases(run: Run) -> Cases | None:
    """The validation images of ``run``; None without a ``validation.csv`` or where it is damaged."""
    return read_cases(lambda: run.validation, run.summary.data.roles)


def read_cases(rows_of: Callable[[], Sequence[Mapping[str, Any]]], classes: Classes) -> Cases | None:
    """Images from rows of ``predictions.csv``, as read or as a task made them; None without any, or with damaged ones.

    Args:
        rows_of: gives the rows; it may raise what reading raises.
        classes: of the images.
    """
    try:
        rows = rows_of()
        if not rows:
            return None
        images = [row["image"] for row in rows]
        grouped = all(row.get("group") for row in rows)
        found = Cases(
            np.array(images),
            np.array([row["group"] for row in rows] if grouped else images),
            grouped,
            np.array([classes.number(row["label"]) for row in rows]),
            _probabilities(rows, classes) if "prediction" in rows[0] else None,
            _masks(rows) if "dice" in rows[0] else {},
            classes,
        )
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return None
    shares = found.probabilities
    damaged = not all(images) or len(set(images)) < len(images)
    damaged |= shares is not None and not (((shares >= 0) & (shares <= 1)).all() and (found.actual >= 0).all())
    return None if damaged or (found.probabilities is None and not found.masks) else found


def _probabilities(rows: Sequence[Mapping[str, Any]], classes: Classes) -> Floats:
    return np.array([[float(row[f"p_{name}"]) for name in classes.names] for row in rows])


def _masks(rows: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    columns = {name: np.array([_float(row.get(name)) for row in rows]) for name in _MASK_COLUMNS}
    dice, lesion, predicted = (columns[name] for name in ("dice", "lesion_pixels", "predicted_pixels"))
    hits = np.where(lesion == 0, 0.0, np.round(dice * (lesion + predicted) / 2))
    return columns | {"true_positive": hits, "found": np.where(np.isnan(predicted), np.nan, predicted > 0)}


def _float(cell: Any) -> float:
    return float("nan") if cell in (None, "") else float(cell)


def pool(parts: Sequence[Cases]) -> Cases:
    """Every image once, sorted: probabilities, Dice and pixel counts as means over the parts that have it."""
    images, first, place = np.unique(
        np.concatenate([part.images for part in parts]), return_index=True, return_inverse=True
    )

    def mean(values: Floats) -> Floats:
        known = np.isfinite(values)
        count = np.bincount(place[known], minlength=len(images))
        total = np.bincount(place[known], values[known], len(images))
        means: Floats = np.divide(total, count, out=np.full(len(images), np.nan), where=count > 0)
        return means

    known = [part.probabilities for part in parts if part.probabilities is not None]
    joined = np.concatenate(known) if len(known) == len(parts) else None
    grouped = all(part.grouped for part in parts)
    clusters = np.concatenate([part.clusters for part in parts])[first]
    return Cases(
        images,
        clusters if grouped else images,
        grouped,
        np.concatenate([part.actual for part in parts])[first],
        None if joined is None else np.stack([mean(column) for column in joined.T], axis=1),
        {name: mean(np.concatenate([part.masks[name] for part in parts])) for name in parts[0].masks}
        if all(part.masks for part in parts)
        else {},
        parts[0].classes,
    )
