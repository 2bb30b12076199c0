"""Losses that need no annotation: what a teacher says of a scan, and answers that agree about it."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.errors import UserError
from busi_lab.models.interface import Outputs
from busi_lab.models.wide import widened
from busi_lab.summary import TeacherRecord
from busi_lab.tasks.perturbation import perturbed

METHODS = ("none", "mean_teacher", "pseudo_label")
DECAY = 0.99
"""Of the average that is the mean teacher, once it has begun: Tarvainen & Valpola (NeurIPS 2017) begin with it."""


@dataclass(frozen=True)
class Guidance:
    """What a task learns from beside annotations; keys of the group ``task``, and no part of a checkpoint.

    Attributes:
        semi: ``none``, ``mean_teacher`` or ``pseudo_label``, see :class:`MeanTeacher` and :class:`PseudoLabels`.
        semi_weight: factor of that loss, once it has its full weight.
        semi_threshold: probability from which on a pseudo-label counts.
        semi_ramp: share of all steps in which that loss comes to its full weight.
        teacher: directory of a finished run, of an ensemble or an exported one; see :class:`Distillation`.
        teacher_weight: factor of that loss.
        teacher_temperature: by which the logits of both are divided.
    """

    semi: str = "none"
    semi_weight: float = 1.0
    semi_threshold: float = 0.9
    semi_ramp: float = 0.3
    teacher: str | None = None
    teacher_weight: float = 1.0
    teacher_temperature: float = 2.0

    def __post_init__(self) -> None:
        """Refuse settings outside their range.

        Raises:
            UserError: naming the key.
        """
        if self.semi not in METHODS:
            raise UserError(f"task.semi={self.semi}: expected {' or '.join(METHODS)}")
        if self.teacher is not None and not isinstance(self.teacher, str):
            raise UserError(f"task.teacher={self.teacher}: expected null or the directory of a finished run")
        for name, least, most in (
            ("semi_weight", 0, None),
            ("semi_threshold", 0.5, 1),
            ("semi_ramp", 0, 1),
            ("teacher_weight", 0, None),
            ("teacher_temperature", 0, None),
        ):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or value < least or (most is not None and value > most):
                upto = f" to {most}" if most else " or more"
                raise UserError(f"task.{name}={value}: expected a number, {least}{upto}")
        if self.teacher_temperature == 0:
            raise UserError("task.teacher_temperature=0: expected more than 0")

    @property
    def wants_unlabelled(self) -> bool:
        """Whether scans without annotation are of use."""
        return self.semi != "none" or self.teacher is not None


class Guided(Protocol):
    """What a guide asks of a task; every :class:`~busi_lab.tasks.base.BaseTask` has it."""

    network: nn.Module
    image_size: int
    trainer: Any

    @property
    def device(self) -> torch.device:
        """Where its network is."""

    @property
    def global_step(self) -> int:
        """Steps that the optimiser has made."""

    def __call__(self, image: Tensor) -> Outputs:
        """Logits of scans uint8 ``[B, 1, S, S]``."""

    def scale(self, image: Tensor) -> Tensor:
        """What the network takes, of such scans."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training, or to evaluation."""


class Guide(ABC):
    """One of these losses. It is asked in training alone, and keeps no part of the task's network."""

    def begin(self, task: Guided) -> None:  # noqa: B027 # most need nothing
        """Training begins, or goes on."""

    @abstractmethod
    def loss(self, task: Guided, batch: Mapping[str, Any]) -> Tensor:
        """A scalar, with the factor that it has at this step."""

    def after_step(self, task: Guided) -> None:  # noqa: B027
        """The optimiser may have made a step."""

    def state(self) -> dict[str, Tensor]:
        """What training needs to go on."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take that up."""


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


def _resized(images: Tensor, side: int) -> Tensor:
    """Scans uint8 ``[B, 1, S, S]`` at another size."""
    if images.shape[-1] == side:
        return images
    resized = F.interpolate(images.float(), size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).byte()
