"""What a task learns from beside annotations: the settings, and what such a loss is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from busi_lab.errors import UserError
from busi_lab.models.interface import Outputs

METHODS = ("none", "mean_teacher", "pseudo_label")


@dataclass(frozen=True)
class Guidance:
    """What a task learns from beside annotations; keys of the group ``task``, and no part of a checkpoint.

    Attributes:
        semi: ``none``, ``mean_teacher`` or ``pseudo_label``, see :mod:`busi_lab.tasks.consistency`.
        semi_weight: factor of that loss, once it has its full weight.
        semi_threshold: probability from which on a pseudo-label counts.
        semi_ramp: share of all steps in which that loss comes to its full weight.
        teacher: directory of a finished run, of an ensemble or an exported one; see
            :mod:`busi_lab.tasks.distillation`.
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
