"""Networks of several finished runs as one, which answers with the mean of their probabilities."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.mean import mean_of
from busi_lab.models.registry import build_network, network_settings, register


@dataclass
class EnsembleSettings(NetworkSettings):
    """``members`` are the ``model`` groups of the runs; ``weights_of`` has a factor for each, None for equal ones."""

    weights: str = "none"
    in_chans: int = 1
    members: list[Any] = field(default_factory=list)
    weights_of: list[float] | None = None

    @property
    def label(self) -> str:
        """The networks, each kind once with its number."""
        counts = Counter(network_settings(member).label for member in self.members)
        return "ensemble of " + ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())


class Member(nn.Module):
    """The network of a run with the scale that it expects.

    Args:
        network: takes normalised images.
        mean: per input channel, on the scale 0 to 1.
        std: per input channel, on the scale 0 to 1.
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Outputs:
        """Logits of scans float ``[B, 1, S, S]`` from 0 to 1; of the network's channels, all are the scan."""
        scaled = (image - self.mean) / self.std  # type: ignore[operator]
        outputs: Outputs = self.network(scaled.contiguous(memory_format=torch.channels_last))
        return outputs


class Ensemble(nn.Module):
    """The weighted mean of the probabilities of several networks, as logits.

    Args:
        members: whose probabilities are averaged.
        weights: a factor for each, together 1.
    """

    def __init__(self, members: list[Member], weights: list[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("_weights", torch.tensor(weights), persistent=False)

    def forward(self, image: Tensor) -> Outputs:
        """Logits of scans float ``[B, 1, S, S]`` from 0 to 1, as :func:`mean_of` gives them."""
        answers: list[Outputs] = [member(image) for member in self.members]
        weights: Any = self._weights
        return mean_of(answers, weights.float().log())


@register("ensemble", EnsembleSettings, gives=("classes", "masks", "both"), trained=False)
def build(settings: EnsembleSettings, wanted: Wanted) -> BuiltModel:
    """Build the networks of all members, without weights.

    Raises:
        UserError: fewer than two members, one that cannot be built, or factors that make no mean.
    """
    count = len(settings.members)
    if count < 2 or not all(isinstance(member, dict) and "name" in member for member in settings.members):
        raise UserError(f"model.members: expected the group model of two runs at least, found {count}")
    weights = [1.0] * count if settings.weights_of is None else settings.weights_of
    if len(weights) != count or min(weights) < 0 or not sum(weights) > 0:
        raise UserError(f"model.weights_of={weights}: expected a factor of 0 or more for each of {count} members")
    built = [build_network(network_settings({**member, "weights": "none"}), wanted) for member in settings.members]
    members = [Member(each.network, each.mean, each.std) for each in built]
    network = Ensemble(members, [weight / sum(weights) for weight in weights])
    return BuiltModel(network, tuple(head for each in built for head in each.heads), (0.0,), (1.0,))
