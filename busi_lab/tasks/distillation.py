"""A finished run teaches another one: its answers are learnt."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from busi_lab.models.interface import Outputs
from busi_lab.summary import TeacherRecord
from busi_lab.tasks.guidance import Guide, Guided


class Distillation(Guide):
    """The student's class probabilities and masks shall be the teacher's, on scans with and without annotation.

    Classes: ``T * T`` times the Kullback-Leibler divergence of softened probabilities (Hinton et al., 2015). Masks: the
    cross-entropy against the teacher's lesion probabilities. What only one of both gives is left out. Both see the
    same augmented scan, the teacher at its own size.

    Args:
        teacher: in evaluation mode; never trained.
        weight: factor of the loss.
        temperature: ``T``.
        record: what the run is to keep of the teacher.
    """

    def __init__(self, teacher: Any, weight: float, temperature: float, record: TeacherRecord) -> None:
        self.record = record
        self._teacher, self._weight, self._temperature = teacher, weight, temperature

    def begin(self, task: Guided) -> None:
        """Follow the task to its device."""
        self._teacher.to(task.device).eval().requires_grad_(False)

    def loss(self, task: Guided, batch: Mapping[str, Any]) -> Tensor:
        """Over all scans of a batch, those without annotation too."""
        images = torch.cat([batch["image"], batch["unlabelled"]]) if "unlabelled" in batch else batch["image"]
        with torch.no_grad():
            taught: Outputs = self._teacher(_resized(images, self._teacher.image_size))
        learnt: Outputs = task(images)
        total = torch.zeros((), device=images.device)
        if taught.classes is not None and learnt.classes is not None:
            soft = self._temperature
            target = (taught.classes.float() / soft).log_softmax(dim=1)
            answer = (learnt.classes.float() / soft).log_softmax(dim=1)
            total = total + soft * soft * F.kl_div(answer, target, log_target=True, reduction="batchmean")
        if taught.masks is not None and learnt.masks is not None:
            size = learnt.masks.shape[-2:]
            target = F.interpolate(taught.masks.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
            total = total + F.binary_cross_entropy_with_logits(learnt.masks.float(), target)
        return self._weight * total


def _resized(images: Tensor, side: int) -> Tensor:
    """Scans uint8 ``[B, 1, S, S]`` at another size."""
    if images.shape[-1] == side:
        return images
    resized = F.interpolate(images.float(), size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).byte()
