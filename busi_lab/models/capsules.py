"""A capsule network with dynamic routing: Sabour et al., NeurIPS 2017."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.checking import check_least
from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.pretrained import refuse_pretrained
from busi_lab.models.registry import register
from busi_lab.models.wide import widened

_KERNEL = 9  # of both convolutions
_EPSILON = 1e-9  # keeps the square root and the logarithm of an empty capsule finite


@dataclass
class CapsuleSettings(NetworkSettings):
    """Settings of a capsule network; the defaults are those of Sabour et al., and there are no pretrained weights.

    Attributes:
        filters: of the first convolution.
        stride: of the first convolution; 2 leaves a quarter of the primary capsules, for larger images.
        capsules: primary capsules at each position.
        primary_size: numbers in a primary capsule.
        class_size: numbers in the capsule of a class.
        routing: iterations of the routing.
    """

    weights: str = "none"
    filters: int = 256
    stride: int = 1
    capsules: int = 32
    primary_size: int = 8
    class_size: int = 16
    routing: int = 3


def squash(vectors: Tensor) -> Tensor:
    """Shrink vectors ``[..., D]`` of length n to the length ``n^2 / (1 + n^2)``, below 1; equation 1."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * (squared / (1 + squared) / (squared + _EPSILON).sqrt())


def route(votes: Tensor, iterations: int) -> Tensor:
    """Capsules of the next layer before they are squashed, by agreement; procedure 1.

    The couplings are learnt by agreement alone: no gradient passes through them.

    Args:
        votes: what each of N capsules predicts for each of K next ones, float ``[B, N, K, D]``.
        iterations: 1 or more.

    Returns:
        Float ``[B, K, D]``.
    """
    fixed = votes.detach()
    agreement = torch.zeros_like(fixed[..., 0])
    for _ in range(iterations - 1):
        capsules = squash(torch.einsum("bnk,bnkd->bkd", agreement.softmax(dim=2), fixed))
        agreement = agreement + torch.einsum("bnkd,bkd->bnk", fixed, capsules)
    return torch.einsum("bnk,bnkd->bkd", agreement.softmax(dim=2), votes)


class ClassCapsules(nn.Module):
    """A capsule a class, to which all primary capsules are routed.

    Args:
        count: primary capsules.
        size: numbers in each.
        classes: capsules of the next layer.
        class_size: numbers in each of those.
        iterations: of the routing.
    """

    def __init__(self, count: int, size: int, classes: int, class_size: int, iterations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(count, classes, class_size, size))
        self.iterations = iterations

    def forward(self, primary: Tensor) -> Tensor:
        """Map primary capsules ``[B, N, D]`` to class capsules before they are squashed, ``[B, K, E]``."""
        return route(torch.einsum("nked,bnd->bnke", self.weight, primary), self.iterations)


class CapsuleNetwork(nn.Module):
    """A 9x9 convolution with ReLU, primary capsules by a 9x9 convolution of stride 2, a capsule a class.

    The length of a squashed capsule says how surely its class is there. Its logit, ``log(v / (1 - v))``, is the
    logarithm of the squared length before squashing, and is the class logit here: ``sigmoid`` gives the length,
    which the margin loss wants, and ``softmax`` shares that add up to 1. The decoder that draws the image again is
    left out.

    Args:
        settings: of the layers.
        classes: outputs.
        image_size: side of the input, pixels; the number of capsules depends on it.

    Raises:
        UserError: the input is too small for two convolutions.
    """

    def __init__(self, settings: CapsuleSettings, classes: int, image_size: int) -> None:
        super().__init__()
        side = (((image_size - _KERNEL) // settings.stride + 1) - _KERNEL) // 2 + 1
        if side < 1:
            least = (_KERNEL - 1) * settings.stride + _KERNEL
            raise UserError(f"data.image_size={image_size} is too small for capsules: at least {least} is needed")
        self._size = settings.primary_size
        self.convolution = nn.Conv2d(settings.in_chans, settings.filters, _KERNEL, settings.stride)
        self.primary = nn.Conv2d(settings.filters, settings.capsules * self._size, _KERNEL, stride=2)
        self.dropout = nn.Dropout(settings.dropout)
        count = side * side * settings.capsules
        self.head = ClassCapsules(count, self._size, classes, settings.class_size, settings.routing)

    def forward(self, image: Tensor) -> Outputs:
        """Map float ``[B, C, S, S]`` to class logits ``[B, K]``."""
        features = self.primary(F.relu(self.convolution(image)))
        batch, channels, height, width = features.shape
        places = features.reshape(batch, channels // self._size, self._size, height * width)
        with torch.autocast(image.device.type, enabled=False):  # lengths are squared: half precision would overflow
            primary = squash(widened(places).permute(0, 1, 3, 2).flatten(1, 2))
            capsules = self.head(self.dropout(primary))
            return Outputs(classes=(capsules.square().sum(dim=-1) + _EPSILON).log())


@register("capsules", CapsuleSettings, gives=("classes",))
def build(settings: CapsuleSettings, wanted: Wanted) -> BuiltModel:
    """Build it, for scans from -2 to 2, on which it learns faster than on those from 0 to 1.

    Raises:
        UserError: pretrained weights are asked for, a setting is below 1, or the input is too small.
    """
    refuse_pretrained(settings)
    names = ("filters", "stride", "capsules", "primary_size", "class_size", "routing")
    check_least("model", settings, dict.fromkeys(names, 1))
    assert wanted.classes is not None
    network = CapsuleNetwork(settings, wanted.classes, wanted.image_size)
    return BuiltModel(network, (network.head,), (0.5,) * settings.in_chans, (0.25,) * settings.in_chans)
