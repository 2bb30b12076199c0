"""Benign, malignant or normal: classification of whole scans."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.classes import BUSI, Classes
from busi_lab.errors import UserError
from busi_lab.metrics import MACRO, PRESENT, classification_metrics, present_averages
from busi_lab.tasks.base import BaseTask, Batch


def margin_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Loss ``[B]`` of images by the length ``sigmoid(logits)`` of each class; Sabour et al., NeurIPS 2017, equation 4.

    The length of the true class is to be 0.9 at least, that of any other 0.1 at most, which counts half.
    """
    lengths = logits.sigmoid()
    there = F.one_hot(label, logits.shape[1])
    missing, excess = F.relu(0.9 - lengths).square(), F.relu(lengths - 0.1).square()
    return (there * missing + 0.5 * (1 - there) * excess).sum(dim=1)


class ClassificationPart(nn.Module):
    """What a task with a class output does with it: loss, metrics, probabilities.

    Args:
        label_smoothing: share of each target spread over all classes, 0 to 1; in training alone.
        class_weights: factors of the loss in the order of ``classes``; in training alone.
        classes: of the dataset.
        focal_gamma: how much less images count that are well recognised (Lin et al., ICCV 2017); 0 is cross-entropy.
        kind: ``cross_entropy``, or ``margin`` (:func:`margin_loss`).

    Raises:
        UserError: a setting outside its range, or one that belongs to the other loss.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        classes: Classes = BUSI,
        focal_gamma: float = 0.0,
        kind: str = "cross_entropy",
    ) -> None:
        super().__init__()
        if isinstance(focal_gamma, bool) or not isinstance(focal_gamma, int | float) or focal_gamma < 0:
            raise UserError(f"task.class_focal_gamma={focal_gamma}: expected 0 or more")
        if kind not in ("cross_entropy", "margin"):
            raise UserError(f"task.class_loss={kind}: expected cross_entropy or margin")
        for name, value in (("class_focal_gamma", focal_gamma), ("label_smoothing", label_smoothing)):
            if kind == "margin" and value:
                raise UserError(f"task.{name}={value} belongs to task.class_loss=cross_entropy; leave one of them out")
        self._margin = kind == "margin"
        self._focal_gamma = focal_gamma
        self.classes = classes
        self._label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("_class_weights", weights, persistent=False)
        metrics = classification_metrics(classes)
        self.metrics = nn.ModuleDict({f"{split}_": metrics.clone() for split in ("train", "val", "test")})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scalar metrics."""
        return (*(str(name) for name in classification_metrics(self.classes) if name != "confusion_matrix"), *PRESENT)

    def loss(self, logits: Tensor, label: Tensor, split: str) -> Tensor:
        """Mean cross-entropy, focal loss or margin loss of logits ``[B, K]`` against labels ``[B]``."""
        smoothing = self._label_smoothing if split == "train" else 0.0
        weights: Any = self._class_weights if split == "train" else None
        logits = logits.float()
        if self._margin:
            each = margin_loss(logits, label)
            return each.mean() if weights is None else (weights[label] * each).sum() / weights[label].sum()
        if not self._focal_gamma:
            return F.cross_entropy(logits, label, weight=weights, label_smoothing=smoothing)
        each = F.cross_entropy(logits, label, weight=weights, label_smoothing=smoothing, reduction="none")
        missing = 1 - logits.softmax(dim=1).gather(1, label[:, None])[:, 0]
        counts = torch.ones_like(each) if weights is None else weights[label]
        return (missing**self._focal_gamma * each).sum() / counts.sum()

    def summarize(
        self, split: str, gathered: dict[str, Tensor], learnt: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """The contract's metrics of ``logits`` against ``label``, and those of benign and malignant images alone.

        Where a class has no image, :func:`busi_lab.metrics.present_averages` are added; in the test, they take the
        place of the macro averages where that is a class of ``learnt``.
        """
        metrics: Any = self.metrics[f"{split}_"]
        metrics.update(gathered["logits"].softmax(dim=1), gathered["label"])
        values: dict[str, Tensor] = metrics.compute()
        metrics.reset()
        undefined = [name for name, value in values.items() if value.ndim == 0 and value.isnan()]
        values = {name: value for name, value in values.items() if name not in undefined}
        images = values["confusion_matrix"].sum(dim=1).tolist()
        if split == "test" and any(images[self.classes.number(name)] == 0 for name in learnt or self.classes.names):
            values = {name: value for name, value in values.items() if name not in MACRO}
        return values | present_averages(values["confusion_matrix"])

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """``prediction`` and ``p_CLASS`` for each class, as ``p_benign``, of each image."""
        probabilities = gathered["logits"].softmax(dim=1)
        predicted = [self.classes.name(position) for position in probabilities.argmax(dim=1).tolist()]
        columns = zip(self.classes.names, probabilities.T.tolist(), strict=True)
        return {"prediction": predicted, **{f"p_{name}": values for name, values in columns}}


class ClassificationTask(BaseTask):
    """Cross-entropy or margin loss over the classes, with the contract's metrics.

    Args:
        model: settings of a network that gives classes.
        image_size: see :class:`BaseTask`, as for the arguments up to ``channels_last``.
        optim: see :class:`BaseTask`.
        scheduler: see :class:`BaseTask`.
        monitor: see :class:`BaseTask`.
        monitor_mode: see :class:`BaseTask`.
        channels_last: see :class:`BaseTask`.
        label_smoothing: see :class:`ClassificationPart`.
        class_weights: see :class:`ClassificationPart`.
        roles: see :class:`BaseTask`.
        class_focal_gamma: see :class:`ClassificationPart`.
        class_loss: its ``kind``, see :class:`ClassificationPart`.
        mixup: see :class:`BaseTask`.
        cutmix: see :class:`BaseTask`.
        views: see :class:`BaseTask`.
    """

    kind = "classification"
    needs_labels = True

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
        roles: Mapping[str, Any] | None = None,
        class_focal_gamma: float = 0.0,
        class_loss: str = "cross_entropy",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        views: str = "none",
    ) -> None:
        common = (model, image_size, optim, scheduler, monitor, monitor_mode, channels_last, roles)
        super().__init__(*common, mixup, cutmix, views)
        self.classes = ClassificationPart(label_smoothing, class_weights, self.roles, class_focal_gamma, class_loss)

    @property
    def metric_names(self) -> list[str]:
        """Names of the scalar metrics."""
        return list(self.classes.names)

    def _step(self, batch: Batch, split: str) -> Tensor:
        mix = self.draw_mix(batch, split)
        logits = self(batch["image"], mix).classes
        self.gather(split, logits=logits.detach().float())
        return mix.loss_of_labels(batch["label"], lambda label: self.classes.loss(logits, label, split))

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """The contract's metrics."""
        return self.classes.summarize(split, gathered, self.learnt)

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """Class and probabilities of each image."""
        return self.classes.columns(gathered)
