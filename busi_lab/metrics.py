"""Metrics under the names of the run directory's contract."""

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


class OneClassAUROC(BinaryAUROC):
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


def classification_metrics(num_classes: int = 3, malignant: int = 1) -> MetricCollection:
    """Metrics of probabilities ``[B, C]`` against labels ``[B]``.

    ``accuracy`` over all images; ``precision``, ``recall`` and ``f1`` as means over the classes that occur in
    labels or predictions; ``auroc`` as the mean over classes, each against the rest; ``auroc_malignant``;
    ``confusion_matrix`` as counts, rows actual, columns predicted.
    """
    macro = {"num_classes": num_classes, "average": "macro"}
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes=num_classes, average="micro"),
        "precision": MulticlassPrecision(**macro),  # type: ignore[arg-type]
        "recall": MulticlassRecall(**macro),  # type: ignore[arg-type]
        "f1": MulticlassF1Score(**macro),  # type: ignore[arg-type]
        "auroc": MulticlassAUROC(**macro),  # type: ignore[arg-type]
        "auroc_malignant": OneClassAUROC(malignant),
        "confusion_matrix": MulticlassConfusionMatrix(num_classes=num_classes),
    }
    shared = [["precision", "recall", "f1"]]
    alone = [[name] for name in metrics if name not in shared[0]]
    return MetricCollection(metrics, compute_groups=shared + alone)
