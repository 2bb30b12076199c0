"""Metrics under the names of the run directory's contract."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from busi_lab.classes import BUSI, Classes


class DefinedAUROC(BinaryAUROC):
    """Area under the ROC curve where there are images of either side, else NaN, which torchmetrics would call 0."""

    def compute(self) -> Tensor:  # type: ignore[override]
        """The area, or NaN."""
        state: Any = self.target
        labels = state if isinstance(state, Tensor) else torch.cat(list(state))
        return super().compute() if 0 < labels.sum() < len(labels) else torch.tensor(math.nan, device=labels.device)


class OneClassAUROC(DefinedAUROC):
    """Area under the ROC curve of one class against all others.

    Args:
        position: the class's column.
    """

    def __init__(self, position: int) -> None:
        super().__init__()
        self._position = position

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities ``[B, C]`` and labels ``[B]``."""
        super().update(preds[:, self._position], (target == self._position).long())


class PresentClassAUROC(MulticlassAUROC):
    """Area under the ROC curve, each class against the rest, as the mean over the classes that occur.

    Args:
        num_classes: columns.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, average="none")

    def compute(self) -> Tensor:  # type: ignore[override]
        """The mean; NaN where there is one class alone."""
        state: Any = self.target
        labels = state if isinstance(state, Tensor) else torch.cat(list(state))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*No (posi|nega)tive samples.*")
            areas = super().compute()
        present = torch.bincount(labels, minlength=len(areas)) > 0
        return areas[present].mean() if present.sum() > 1 else areas.new_tensor(math.nan)


class LesionAUROC(DefinedAUROC):
    """Area under the ROC curve of the positive against the negative class, over the images of both alone.

    The score is p_positive / (p_negative + p_positive), in float64, and 0.5 where both are 0.

    Args:
        negative: the class's column.
        positive: the class's column.
    """

    def __init__(self, negative: int, positive: int) -> None:
        super().__init__(ignore_index=-1)
        self._columns = negative, positive

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities ``[B, C]`` and labels ``[B]``."""
        negative, positive = (preds[:, column].double() for column in self._columns)
        both = negative + positive
        score = torch.where(both > 0, positive / both, 0.5)
        lesion = (target == self._columns[0]) | (target == self._columns[1])
        super().update(score, torch.where(lesion, (target == self._columns[1]).long(), -1))


class LesionAccuracy(Metric):
    """Share of the images of two classes where the more probable one of both is right; of equals the negative.

    Args:
        negative: the class's column.
        positive: the class's column.
    """

    full_state_update = False

    def __init__(self, negative: int, positive: int) -> None:
        super().__init__()
        self._columns = negative, positive
        self.add_state("right", default=torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("images", default=torch.zeros(2), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities ``[B, C]`` and labels ``[B]``."""
        called = preds[:, self._columns[1]] > preds[:, self._columns[0]]
        for place, column in enumerate(self._columns):
            self.right[place] += ((target == column) & (called == bool(place))).sum()  # type: ignore[operator, index]
            self.images[place] += (target == column).sum()  # type: ignore[operator, index]

    def compute(self) -> Tensor:
        """The share; NaN without images of both classes."""
        right, images = self.right, self.images
        assert isinstance(right, Tensor) and isinstance(images, Tensor)
        return right.sum() / images.sum() if images.all() else images.new_tensor(math.nan)


MACRO = ("precision", "recall", "f1")
PRESENT = tuple(f"{name}_present" for name in MACRO)


def present_averages(confusion: Tensor) -> dict[str, Tensor]:
    """``precision_present``, ``recall_present`` and ``f1_present`` where a class has no image, else nothing.

    Means over the classes that have images, of precision (0 where a class is never predicted), recall and F1. A class
    without images that is predicted costs the others their recall, and is no further 0 in the mean.

    Args:
        confusion: counts ``[C, C]``, rows actual, columns predicted.
    """
    counts = confusion.double()
    hits, actual, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    present = actual > 0
    if present.all() or not present.any():
        return {}
    shares = (hits / predicted.clamp(min=1), hits / actual.clamp(min=1), 2 * hits / (actual + predicted).clamp(min=1))
    return {name: share[present].mean().float() for name, share in zip(PRESENT, shares, strict=True)}


def classification_metrics(classes: Classes = BUSI) -> MetricCollection:
    """Metrics of probabilities ``[B, C]`` against labels ``[B]``.

    ``accuracy`` over all images; ``precision``, ``recall`` and ``f1`` as means over the classes that occur in
    labels or predictions; ``auroc`` as the mean over the classes that occur, each against the rest;
    ``auroc_malignant``; ``confusion_matrix`` as counts, rows actual, columns predicted. ``accuracy_without_normal`` and
    ``auroc_benign_malignant`` are those of benign and malignant images alone (:class:`LesionAccuracy`,
    :class:`LesionAUROC`), NaN without both. Classes other than BUSI's have names and figures by their roles.
    """
    num_classes = len(classes)
    macro = {"num_classes": num_classes, "average": "macro"}
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes=num_classes, average="micro"),
        "precision": MulticlassPrecision(**macro),  # type: ignore[arg-type]
        "recall": MulticlassRecall(**macro),  # type: ignore[arg-type]
        "f1": MulticlassF1Score(**macro),  # type: ignore[arg-type]
        "auroc": PresentClassAUROC(num_classes),
        **_by_role(classes),
        "confusion_matrix": MulticlassConfusionMatrix(num_classes=num_classes),
    }
    shared = [list(MACRO)]
    alone = [[name] for name in metrics if name not in shared[0]]
    return MetricCollection(metrics, compute_groups=shared + alone)


def _by_role(classes: Classes) -> dict[str, Metric | MetricCollection]:
    """Metrics of the positive class, against the rest and among scans with a lesion."""
    found: dict[str, Metric | MetricCollection] = {}
    if classes.auroc_positive is not None and classes.positive is not None:
        found[classes.auroc_positive] = OneClassAUROC(classes.number(classes.positive))
    if classes.accuracy_lesions and classes.auroc_lesions and classes.negative and classes.positive:
        columns = classes.number(classes.negative), classes.number(classes.positive)
        found[classes.accuracy_lesions] = LesionAccuracy(*columns)
        found[classes.auroc_lesions] = LesionAUROC(*columns)
    return found


SEGMENTATION_METRICS = (
    *("dice", "iou", "dice_pooled", "pixel_accuracy", "pixel_precision", "pixel_recall"),
    *("hd95_pixels", "hd95_mm", "false_positive_rate", "missed_lesions", "dice_empty_as_one"),
)


class SegmentationMetrics(Metric):
    """Metrics of binary lesion masks from counts of each image, whatever the batches and their order.

    What is computed, with the policy for empty masks:

    - ``dice`` = 2 TP / (predicted + lesion) and ``iou`` = TP / (predicted + lesion - TP), each the mean over the
      images with a lesion; an image whose prediction is empty counts 0, an image without a lesion not at all.
    - ``dice_pooled``, ``pixel_accuracy``, ``pixel_precision``, ``pixel_recall``: over the pixels of all images
      together, those without a lesion as well; precision is 0 where nothing is predicted, and without any lesion
      only ``pixel_accuracy`` is defined.
    - ``hd95_pixels``: 95th percentile of the Hausdorff distance, in pixels of the scan as it is stored, see
      :func:`hausdorff95`; the mean over images with a lesion and a prediction. What it leaves out,
      ``missed_lesions`` counts: the share of the images with a lesion for which nothing is predicted. Masks of the
      network's size are measured with the true size of their pixels, which need not be square; no distance below
      one of them is seen. ``hd95_mm``: the same in millimetres, over the images whose pixel spacing is known.
      (``hd95`` of older runs was in pixels of the network, or of the scan under ``task.resolution=original``.)
    - ``false_positive_rate``: share of the images without a lesion for which any is predicted.
    - ``dice_empty_as_one``: the mean of Dice over all images, where no lesion and no prediction count 1, and a
      prediction without a lesion 0. Others publish it; every normal scan left alone raises it.

    A figure that no image defines is left out.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("true_positive", "predicted", "lesion", "pixels", "distance", "distance_mm"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        true_positive: Tensor,
        predicted: Tensor,
        lesion: Tensor,
        pixels: Tensor,
        distance: Tensor | None = None,
        distance_mm: Tensor | None = None,
    ) -> None:
        """Add images.

        Args:
            true_positive: lesion pixels that are predicted, int64 ``[B]``.
            predicted: predicted pixels, int64 ``[B]``.
            lesion: lesion pixels, int64 ``[B]``.
            pixels: all pixels, int64 ``[B]``.
            distance: of :func:`hausdorff95`, pixels of the stored scan, float ``[B]``, NaN where it is not defined;
                None where it is not wanted.
            distance_mm: the same in millimetres, NaN also where the pixel spacing is not known.
        """
        unknown = torch.full(true_positive.shape, math.nan, device=true_positive.device)
        values = {
            "true_positive": true_positive,
            "predicted": predicted,
            "lesion": lesion,
            "pixels": pixels,
            "distance": unknown if distance is None else distance,
            "distance_mm": unknown if distance_mm is None else distance_mm,
        }
        for name, value in values.items():
            getattr(self, name).append(value)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, float32."""
        hits, predicted, lesion, pixels = (
            _join(getattr(self, name)) for name in ("true_positive", "predicted", "lesion", "pixels")
        )
        dice, iou = overlap(hits, predicted, lesion)
        ill = lesion > 0
        sums = [float(values.sum()) for values in (hits, predicted, lesion, pixels)]
        values: dict[str, float] = {}
        if ill.any():
            values["dice"], values["iou"] = float(dice[ill].mean()), float(iou[ill].mean())
            values["missed_lesions"] = float((predicted[ill] == 0).double().mean())
        if sums[2] > 0:
            values["dice_pooled"] = 2 * sums[0] / (sums[1] + sums[2])
        values["pixel_accuracy"] = (sums[3] - sums[1] - sums[2] + 2 * sums[0]) / sums[3]
        if ill.any():
            values["pixel_precision"] = sums[0] / sums[1] if sums[1] else 0.0
            values["pixel_recall"] = sums[0] / sums[2]
        for name, state in (("hd95_pixels", self.distance), ("hd95_mm", self.distance_mm)):
            distance = _join(state)
            if (measured := ~torch.isnan(distance)).any():
                values[name] = float(distance[measured].mean())
        if (~ill).any():
            values["false_positive_rate"] = float((predicted[~ill] > 0).double().mean())
        values["dice_empty_as_one"] = float(torch.where(ill, dice, (predicted == 0).double()).mean())
        device = self.device
        return {name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in values.items()}


def _join(state: Any) -> Tensor:
    joined = state if isinstance(state, Tensor) else torch.cat(list(state))
    return joined.cpu() if joined.dtype == torch.int64 else joined.cpu().double()


def overlap(true_positive: Tensor, predicted: Tensor, lesion: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and IoU of each image, float64 ``[B]``, from pixel counts ``[B]``; NaN for an image without a lesion."""
    hits, found, there = (values.cpu().double() for values in (true_positive, predicted, lesion))
    nothing = torch.full_like(hits, math.nan)
    dice = torch.where(there > 0, 2 * hits / (found + there), nothing)
    return dice, torch.where(there > 0, hits / (found + there - hits), nothing)


def hausdorff95(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    """95th percentile of the Hausdorff distance of two masks, in the unit of ``spacing``.

    Of the distances from each boundary pixel of one mask to the nearest boundary pixel of the other, the 95th
    percentile; the larger one of both directions, as in MONAI (source of the definition: Huttenlocher et al., IEEE
    TPAMI 15(9), 1993). Boundary pixels are those with a pixel outside the mask, or the edge of the image, beside them.

    Args:
        prediction: bool ``[H, W]``.
        truth: bool ``[H, W]``.
        spacing: distance of two rows and of two columns; (1, 1) measures in pixels.

    Returns:
        NaN where either mask is empty.
    """
    if not prediction.any() or not truth.any():
        return math.nan
    rows, columns = np.nonzero(prediction | truth)
    part = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction[part], truth[part])]
    distances = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    return float(max(np.percentile(distances[1 - i][borders[i]], 95) for i in (0, 1)))
