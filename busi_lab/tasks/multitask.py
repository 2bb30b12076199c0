"""Class and outline at once: one encoder with a classification head and a U-Net decoder."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from busi_lab.errors import UserError
from busi_lab.tasks.base import Batch
from busi_lab.tasks.classification import ClassificationPart
from busi_lab.tasks.refinement import REFINED_METRICS, refined_figures, refined_predictions
from busi_lab.tasks.segmentation import MaskTask, SegmentationPart


class MultiTask(MaskTask):
    """A weighted sum of the losses of both tasks, and the metrics of both.

    ``f1_dice``, the mean of macro F1 and Dice, is there to choose the best epoch by.

    Args:
        model: settings of a network that gives both.
        image_size: see :class:`BaseTask`, as for the arguments up to ``channels_last``.
        optim: see :class:`BaseTask`.
        scheduler: see :class:`BaseTask`.
        loss: see :class:`SegmentationPart`, as for ``threshold`` and the arguments behind it.
        monitor: see :class:`BaseTask`.
        monitor_mode: see :class:`BaseTask`.
        channels_last: see :class:`BaseTask`.
        classification_weight: factor of the classification loss.
        segmentation_weight: factor of the mask loss.
        label_smoothing: see :class:`ClassificationPart`.
        class_weights: see :class:`ClassificationPart`.
        threshold: see :class:`SegmentationPart`.
        resolution: see :class:`SegmentationPart`.
        focal_gamma: see :class:`SegmentationLoss`.
        tversky_beta: see :class:`SegmentationLoss`.
        roles: see :class:`BaseTask`.
        class_focal_gamma: see :class:`ClassificationPart`.
        class_loss: its ``kind``, see :class:`ClassificationPart`.
        refine: ``none``, or ``paper``: figures with the ending ``_refined`` stand beside the plain ones, for which a
            scan that is called without a lesion has an empty mask, and one with an empty mask is called without a
            lesion (Aumente-Maestro et al., CMPB 260, 2025). What is predicted does not change.
        mixup: see :class:`BaseTask`.
        cutmix: see :class:`BaseTask`.
        views: see :class:`BaseTask`.

    Raises:
        UserError: a setting outside its range, or nothing that ``refine`` could refer to.
    """

    kind = "multitask"
    needs_labels = True

    def __init__(
        self,
        model: Mapping[str, Any],
        image_size: int,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        loss: Mapping[str, float],
        monitor: str = "val/f1_dice",
        monitor_mode: str = "max",
        channels_last: bool = True,
        classification_weight: float = 1.0,
        segmentation_weight: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        threshold: float | str = 0.5,
        resolution: str = "network",
        focal_gamma: float = 2.0,
        tversky_beta: float = 0.7,
        roles: Mapping[str, Any] | None = None,
        class_focal_gamma: float = 0.0,
        class_loss: str = "cross_entropy",
        refine: str = "none",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        views: str = "none",
    ) -> None:
        for key, weight in (("classification", classification_weight), ("segmentation", segmentation_weight)):
            if not isinstance(weight, int | float) or weight <= 0:
                raise UserError(
                    f"task.{key}_weight={weight}: expected more than 0; for one task alone choose its task="
                )
        common = (model, image_size, optim, scheduler, monitor, monitor_mode, channels_last, roles)
        super().__init__(*common, mixup, cutmix, views)
        if refine not in ("none", "paper"):
            raise UserError(f"task.refine={refine}: expected none or paper")
        if refine == "paper" and self.roles.without_lesion is None:
            raise UserError("task.refine=paper: these data have no class without a lesion; set task.refine=none")
        self.classes = ClassificationPart(label_smoothing, class_weights, self.roles, class_focal_gamma, class_loss)
        self.masks = SegmentationPart(loss, threshold, resolution, focal_gamma, tversky_beta)
        self._weights = (classification_weight, segmentation_weight)
        self._refine = refine == "paper"

    @property
    def metric_names(self) -> list[str]:
        """Names of the scalar metrics."""
        refined = REFINED_METRICS if self._refine else ()
        own = ("f1_dice", "classification_loss", "segmentation_loss")
        return [*self.classes.names, *self.masks.names, *own, *refined]

    def _step(self, batch: Batch, split: str) -> Tensor:
        mix = self.draw_mix(batch, split)
        outputs = self(batch["image"], mix)
        class_logits, mask_logits = outputs.classes, outputs.masks
        losses = [torch.full((), math.nan, device=class_logits.device)] * 2
        gathered: dict[str, Tensor] = {}
        if split != "test" or bool((batch["label"] >= 0).all()):  # an evaluation may know labels or masks alone
            losses[0] = mix.loss_of_labels(batch["label"], lambda label: self.classes.loss(class_logits, label, split))
            gathered["logits"] = class_logits.detach().float()
        if "mask" in batch:
            losses[1] = mix.loss_of_masks(batch["mask"], lambda mask: self.masks.total_loss(outputs, mask, split))
            gathered |= self.masks.count(mask_logits, batch, split)
        images = len(batch["image"])
        self.gather(split, losses=torch.stack(losses).detach().float().expand(images, 2), **gathered)
        known = ("logits" in gathered, "mask" in batch)
        parts = zip(self._weights, losses, known, strict=True)
        loss: Tensor = torch.stack([weight * part for weight, part, there in parts if there]).sum()
        return loss

    def summarize(self, split: str, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        """The metrics of both tasks, their mean ``f1_dice``, and the two losses; of one task where one is known."""
        known = _known(gathered)
        values = self.classes.summarize(split, gathered, self.learnt) if known[0] else {}
        values |= self.masks.summarize(split, gathered) if known[1] else {}
        if "dice" in values and "f1" in values:
            values["f1_dice"] = (values["f1"] + values["dice"]) / 2
        for column, name in enumerate(("classification_loss", "segmentation_loss")):
            if known[column]:
                values[name] = self.mean(gathered["losses"][:, column])
        if self._refine and all(known) and split != "train":
            figures = refined_figures(gathered, self.roles)
            means = {name: self.mean(figure[~figure.isnan()]) for name, figure in figures.items()}
            values |= {name: mean for name, mean in means.items() if not mean.isnan()}
        return values

    def columns(self, gathered: dict[str, Tensor]) -> dict[str, list[Any]]:
        """The columns of both tasks, or of the one whose truth is known."""
        classes, masks = _known(gathered)
        columns = {
            **(self.classes.columns(gathered) if classes else {}),
            **(self.masks.columns(gathered) if masks else {}),
        }
        if self._refine and classes and masks:
            predicted = refined_predictions(gathered, self.roles).tolist()
            columns["prediction_refined"] = [self.roles.name(number) for number in predicted]
            dice = refined_figures(gathered, self.roles)["dice_refined"].tolist()
            columns["dice_refined"] = [None if value != value else value for value in dice]
        return columns


def _known(gathered: Mapping[str, Tensor]) -> tuple[bool, bool]:
    """Whether classes and masks were judged."""
    return "logits" in gathered, "lesion" in gathered
