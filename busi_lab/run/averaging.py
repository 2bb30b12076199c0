"""A running average of the weights, which is judged and kept instead of the weights that are trained."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from busi_lab.models.wide import wide


class WeightAverage(Callback):
    """Average a network's weights, and the statistics of its batch norm, exponentially over the steps of training.

    From the validation of an epoch to the start of the next one the average is in the network's place, so that it is
    what is validated, what ``best.ckpt`` holds, and what is tested. Training goes on with the weights themselves;
    ``last.ckpt`` has both. On several devices all weights, and with them their averages, are equal; of the batch-norm
    statistics, which each device gathers on its own, those of the first are judged and kept, as without an average.

    Step number n, from 1, has the decay ``min(decay, (1 + n) / (10 + n))``, so that the average does not cling to
    where training began (that of TensorFlow's ExponentialMovingAverage). It must stand before the callbacks that save
    a state.

    Args:
        decay: share of the average that a step leaves, between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}  # the weights themselves, while the average is in their place
        self._global_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or go on with the average of a run that was cut."""
        self._global_step = trainer.global_step
        self._average = {
            name: self._average.get(name, tensor).detach().to(tensor.device, wide(tensor.dtype), copy=True)
            for name, tensor in _averaged(pl_module).items()
        }

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a step of the optimiser into the average; batches whose gradients are only gathered make none."""
        if trainer.global_step == self._global_step:
            return
        self._global_step = trainer.global_step
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        averages = list(self._average.values())
        weights = [tensor.detach().to(wide(tensor.dtype)) for tensor in _averaged(pl_module).values()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the network's place, while it trains and for no other validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._trained = {name: tensor.detach().clone() for name, tensor in _averaged(pl_module).items()}
            _put(pl_module, self._average)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights themselves."""
        self._go_back(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, before the final state is saved."""
        self._go_back(pl_module)

    def _go_back(self, task: LightningModule) -> None:
        _put(task, self._trained)
        self._trained = {}

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of steps."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both up."""
        self._steps, self._average = state_dict["steps"], state_dict["average"]


def _averaged(task: LightningModule) -> dict[str, Tensor]:
    """What of a network is averaged, by name: all weights and statistics but counters."""
    network: Any = task.network
    tensors: dict[str, Tensor] = network.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _put(task: LightningModule, values: dict[str, Tensor]) -> None:
    tensors = _averaged(task)
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)
