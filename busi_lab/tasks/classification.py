"""Benign, malignant or normal: classification of whole scans."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from busi_lab.metrics import classification_metrics
from busi_lab.models.classifiers import BuiltModel, build_classifier
from busi_lab.run_directory import CLASSES
from busi_lab.tasks.base import BaseTask, Batch


class ClassificationTask(BaseTask):
    """Cross-entropy over the classes, with the contract's metrics.

    Args:
        model: ``name`` (custom_cnn, timm), ``backbone``, ``weights``, ``in_chans``, ``dropout``, ``freeze``.
        image_size: see :class:`BaseTask`, as for the arguments up to ``channels_last``.
        optim: see :class:`BaseTask`.
        scheduler: see :class:`BaseTask`.
        monitor: see :class:`BaseTask`.
        monitor_mode: see :class:`BaseTask`.
        channels_last: see :class:`BaseTask`.
        label_smoothing: share of each target spread over all classes, 0 to 1.
        class_weights: factors of the loss in the order of ``CLASSES``.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        image_size: int,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        monitor: str = "val/f1",
        monitor_mode: str = "max",
        channels_last: bool = True,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, image_size, optim, scheduler, monitor, monitor_mode, channels_last)
        self._label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("_class_weights", weights, persistent=False)
        metrics = classification_metrics(len(CLASSES), CLASSES.index("malignant"))
        self.metrics = torch.nn.ModuleDict({f"{split}_": metrics.clone() for split in ("train", "val", "test")})
        self._case_ids: list[str] = []
        self._rows: list[dict[str, Any]] = []

    def configure_network(self) -> BuiltModel:
        """Build the classifier."""
        settings = self.model_settings
        return build_classifier(
            name=settings["name"],
            backbone=settings.get("backbone"),
            weights=settings["weights"],
            num_classes=len(CLASSES),
            in_chans=settings["in_chans"],
            image_size=self.image_size,
            dropout=settings["dropout"],
        )

    @property
    def metric_names(self) -> list[str]:
        """Names of the scalar metrics."""
        return [str(name) for name in classification_metrics() if name != "confusion_matrix"]

    def _step(self, batch: Batch, split: str) -> Tensor:
        logits, label = self(batch["image"]), batch["label"]
        smoothing = self._label_smoothing if split == "train" else 0.0
        weights: Any = self._class_weights if split == "train" else None
        self.gather(split, logits=logits.detach().float(), label=label)
        if split == "test":
            self._case_ids += batch["case_id"]
        return F.cross_entropy(logits.float(), label, weight=weights, label_smoothing=smoothing)

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """The contract's metrics."""
        probabilities, label = gathered["logits"].softmax(dim=1), gathered["label"]
        if split == "test":
            self._rows = self._tabulate(probabilities, label)
        metrics = self.metrics[f"{split}_"]
        metrics.update(probabilities, label)  # type: ignore[operator]
        values: dict[str, Tensor] = metrics.compute()  # type: ignore[operator]
        metrics.reset()  # type: ignore[operator]
        return values

    def on_test_epoch_start(self) -> None:
        """Start to gather test batches."""
        super().on_test_epoch_start()
        self._case_ids.clear()

    def predictions(self) -> list[dict[str, Any]]:
        """Rows ``image, label, prediction, p_benign, p_malignant, p_normal`` of the last test, sorted by image."""
        rows = self._rows
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        return sorted(rows, key=lambda row: str(row["image"]))

    def _tabulate(self, probabilities: Tensor, label: Tensor) -> list[dict[str, Any]]:
        predicted = probabilities.argmax(dim=1).tolist()
        columns = zip(self._case_ids, label.tolist(), predicted, probabilities.tolist(), strict=True)
        return [
            {
                "image": case_id,
                "label": CLASSES[actual],
                "prediction": CLASSES[chosen],
                **{f"p_{name}": value for name, value in zip(CLASSES, values, strict=True)},
            }
            for case_id, actual, chosen, values in columns
        ]
