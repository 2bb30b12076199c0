"""Scans without annotation: what is said of one, and of a disturbed copy of it, shall agree."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.models.interface import Outputs
from busi_lab.models.wide import widened
from busi_lab.tasks.guidance import Guidance, Guide, Guided
from busi_lab.tasks.perturbation import perturbed

DECAY = 0.99
"""Of the average that is the mean teacher, once it has begun: Tarvainen & Valpola (NeurIPS 2017) begin with it."""


class Consistency(Guide):
    """Of a scan without annotation, what is said of it as it is, and of a disturbed copy, shall agree.

    The factor grows from 0 within the first steps, as ``exp(-5 (1 - t)^2)``, in the way of Laine & Aila (ICLR 2017).

    Args:
        weight: factor of the loss.
        ramp: share of all steps until it is whole.
    """

    def __init__(self, weight: float, ramp: float) -> None:
        self._weight, self._ramp = weight, ramp

    def loss(self, task: Guided, batch: Mapping[str, Any]) -> Tensor:
        """Over the scans without annotation of a batch."""
        images = batch["unlabelled"]
        with torch.no_grad():
            target = self._target(task, images)
        answer: Outputs = task(perturbed(images, task.global_step))
        return self._weight * self._grown(task) * self._disagreement(target, answer)

    @abstractmethod
    def _target(self, task: Guided, images: Tensor) -> Outputs:
        """Logits of scans as they are."""

    @abstractmethod
    def _disagreement(self, target: Outputs, answer: Outputs) -> Tensor:
        """A scalar."""

    def _grown(self, task: Guided) -> float:
        steps = self._ramp * float(task.trainer.estimated_stepping_batches)
        done = min(1.0, task.global_step / steps) if steps > 0 else 1.0
        return float(torch.tensor(-5.0 * (1 - done) ** 2).exp())


class MeanTeacher(Consistency):
    """The target is a running average of the network (Tarvainen & Valpola, NeurIPS 2017), the loss a squared distance.

    It is that of class probabilities, summed over classes, and of lesion probabilities, a mean over pixels. The average
    is kept in 32 bits where the network has fewer, in which small steps would be rounded away.
    """

    def __init__(self, weight: float, ramp: float) -> None:
        super().__init__(weight, ramp)
        self._network: nn.Module | None = None  # which answers with the average, in its own precision
        self._average: dict[str, Tensor] = {}
        self._steps = 0
        self._seen = 0
        self._state: Mapping[str, Tensor] = {}

    def begin(self, task: Guided) -> None:
        """Begin with the network as it is, or go on with its average."""
        self._network = copy.deepcopy(task.network).eval().requires_grad_(False)
        self._average = {name: widened(value) for name, value in self._network.state_dict().items()}
        self._seen = task.global_step
        if self._state:
            self._steps = int(self._state["steps"])
            for name, value in self._average.items():
                value.copy_(self._state[name])
            self._answer_with_average()

    def after_step(self, task: Guided) -> None:
        """Take a step into the average."""
        if task.global_step == self._seen or self._network is None:
            return
        self._seen = task.global_step
        self._steps += 1
        decay = min(DECAY, (1 + self._steps) / (10 + self._steps))
        own = task.network.state_dict()
        floats = [name for name, value in self._average.items() if value.is_floating_point()]
        averages, weights = [self._average[name] for name in floats], [widened(own[name]) for name in floats]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for name in self._average.keys() - {*floats}:
            self._average[name].copy_(own[name])
        self._answer_with_average()

    def _answer_with_average(self) -> None:
        assert self._network is not None
        for name, value in self._network.state_dict().items():
            if value.dtype != self._average[name].dtype:  # else both are one tensor
                value.copy_(self._average[name])

    def state(self) -> dict[str, Tensor]:
        """The average and its number of steps."""
        return {**self._average, "steps": torch.tensor(self._steps)} if self._average else {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Keep that until training goes on."""
        self._state = state

    def _target(self, task: Guided, images: Tensor) -> Outputs:
        assert self._network is not None
        outputs: Outputs = self._network(task.scale(images))
        return outputs

    def _disagreement(self, target: Outputs, answer: Outputs) -> Tensor:
        total = torch.zeros((), device=_any(answer).device)
        if target.classes is not None and answer.classes is not None:
            apart = answer.classes.float().softmax(dim=1) - target.classes.float().softmax(dim=1)
            total = total + apart.square().sum(dim=1).mean()
        if target.masks is not None and answer.masks is not None:
            total = total + (answer.masks.float().sigmoid() - target.masks.float().sigmoid()).square().mean()
        return total


class PseudoLabels(Consistency):
    """The target is what the network itself is sure of, taken as the truth (as FixMatch; Sohn et al., NeurIPS 2020).

    Scans whose class, and pixels whose kind, is less probable than the threshold do not count.

    Args:
        weight: factor of the loss.
        ramp: share of all steps until it is whole.
        threshold: probability.
    """

    def __init__(self, weight: float, ramp: float, threshold: float) -> None:
        super().__init__(weight, ramp)
        self._threshold = threshold

    def _target(self, task: Guided, images: Tensor) -> Outputs:
        task.train(False)
        outputs: Outputs = task(images)
        task.train()
        return outputs

    def _disagreement(self, target: Outputs, answer: Outputs) -> Tensor:
        total = torch.zeros((), device=_any(answer).device)
        if target.classes is not None and answer.classes is not None:
            sure, label = target.classes.float().softmax(dim=1).max(dim=1)
            each = F.cross_entropy(answer.classes.float(), label, reduction="none")
            total = total + (each * (sure >= self._threshold)).mean()
        if target.masks is not None and answer.masks is not None:
            lesion = target.masks.float().sigmoid()
            sure = torch.maximum(lesion, 1 - lesion) >= self._threshold
            truth = (lesion >= 0.5).float()
            each = F.binary_cross_entropy_with_logits(answer.masks.float(), truth, reduction="none")
            total = total + (each * sure).mean()
        return total


def make_consistency(guidance: Guidance) -> Consistency | None:
    """The loss that ``task.semi`` names; None for none."""
    if guidance.semi == "mean_teacher":
        return MeanTeacher(guidance.semi_weight, guidance.semi_ramp)
    if guidance.semi == "pseudo_label":
        return PseudoLabels(guidance.semi_weight, guidance.semi_ramp, guidance.semi_threshold)
    return None


def _any(outputs: Outputs) -> Tensor:
    found = outputs.classes if outputs.classes is not None else outputs.masks
    assert found is not None
    return found
