"""What goes into a network: channels and their normalisation, sizes, and a trial with a blank image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError
from busi_lab.models.interface import BuiltModel, Outputs, Wanted
from busi_lab.models.wide import widened

STRIDE = 32
"""Images are padded to multiples of this at their right and bottom edges, and the mask logits cut back."""


def match_channels(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Normalisation constants for ``in_chans`` channels; the mean of all for one channel."""
    return tuple(values) if len(values) == in_chans else (sum(values) / len(values),) * in_chans


def standardize(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A hook before a network's forward: each image ``[C, H, W]`` to mean 0 and standard deviation 1 in each channel.

    Scans of machines with another gain then look alike. What scaled the image before makes no difference.
    """
    image, *rest = inputs
    own = widened(image)
    mean = own.mean(dim=(2, 3), keepdim=True)
    deviation = (own - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
    return ((own - mean) / (deviation + 1e-3)).to(image.dtype), *rest


class PaddedNetwork(nn.Module):
    """Let a network of stride 32 take images of any size: edge pixels are repeated to the next multiple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Outputs:
        """As the network, with mask logits of the image's own size."""
        height, width = image.shape[-2:]
        below, beside = -height % STRIDE, -width % STRIDE
        if not below and not beside:
            outputs: Outputs = self.network(image)
            return outputs
        outputs = self.network(F.pad(image, (0, beside, 0, below), mode="replicate"))
        masks = None if outputs.masks is None else outputs.masks[..., :height, :width]
        auxiliary = outputs.auxiliary and tuple(logits[..., :height, :width] for logits in outputs.auxiliary)
        return Outputs(outputs.classes, masks, auxiliary, auxiliary_factors=outputs.auxiliary_factors)


def check_network(built: BuiltModel, wanted: Wanted, settings: NetworkSettings) -> None:
    """Try one blank image of the wanted size.

    Raises:
        UserError: the network cannot take it, or answers with something else than what is wanted.
    """
    network, size = built.network, wanted.image_size
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            outputs = network(torch.zeros(1, settings.in_chans, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"data.image_size={size} does not suit {settings.label}: {reason}; choose another size"
        ) from None
    finally:
        network.train(training)
    expected = {
        "classes": None if wanted.classes is None else [1, wanted.classes],
        "masks": [1, 1, size, size] if wanted.masks else None,
    }
    found = {type(outputs).__name__: outputs}
    if isinstance(outputs, Outputs):
        found = {"classes": outputs.classes, "masks": outputs.masks}
    shapes = {name: None if value is None else list(getattr(value, "shape", ())) for name, value in found.items()}
    if shapes != expected:
        raise UserError(
            f"model.name={settings.name}: expected Outputs with {expected} for an image of {size} pixels, found "
            f"{shapes}; mend the network's forward"
        )
