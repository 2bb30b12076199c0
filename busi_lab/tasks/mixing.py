"""Two scans as one, in training alone: mixup and CutMix."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta

from busi_lab.errors import UserError

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Mix:
    """How the scans of a batch are mixed with others of it; by default with none.

    Attributes:
        partner: position of the other scan, int64 ``[B]``; None where nothing is mixed.
        share: how much of a scan is its own, 0 to 1.
        box: rows and columns that are the other's (CutMix); None where the gray levels are averaged (mixup).
    """

    partner: Tensor | None = None
    share: float = 1.0
    box: tuple[slice, slice] | None = None

    def images(self, image: Tensor) -> Tensor:
        """Mixed images of float ``[B, C, S, S]``."""
        if self.partner is None:
            return image
        other = image[self.partner.to(image.device)]
        return torch.lerp(other, image, self.share) if self.box is None else self._pasted(image, other)

    def loss_of_labels(self, label: Tensor, loss: Loss) -> Tensor:
        """The losses against both labels ``[B]``, by their shares."""
        if self.partner is None:
            return loss(label)
        return self.share * loss(label) + (1 - self.share) * loss(label[self.partner.to(label.device)])

    def loss_of_masks(self, mask: Tensor, loss: Loss) -> Tensor:
        """Loss against masks ``[B, 1, S, S]``: of mixup as that of labels, of CutMix against what was put together."""
        if self.partner is None or self.box is None:
            return self.loss_of_labels(mask, loss)
        return loss(self._pasted(mask, mask[self.partner.to(mask.device)]))

    def _pasted(self, own: Tensor, other: Tensor) -> Tensor:
        assert self.box is not None
        (rows, columns), mixed = self.box, own.clone()
        mixed[..., rows, columns] = other[..., rows, columns]
        return mixed


NOTHING_MIXED = Mix()


class Mixing:
    """Draws how batches are mixed, from torch's generator: a function of the seed and of what was drawn before.

    Args:
        mixup: both parameters of the beta distribution of shares (Zhang et al., ICLR 2018); 0 for none.
        cutmix: the same for boxes, whose area is the other's share (Yun et al., ICCV 2019); 0 for none. With both,
            one of the two is drawn for each batch.

    Raises:
        UserError: a negative parameter, or no number.
    """

    def __init__(self, mixup: float, cutmix: float) -> None:
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise UserError(f"task.{name}={value}: expected 0, or the parameter of a beta distribution, as 0.4")
        self._mixup, self._cutmix = float(mixup), float(cutmix)

    def draw(self, images: int, size: int) -> Mix:
        """How a batch of so many scans of ``size`` pixels is mixed."""
        if not (self._mixup or self._cutmix):
            return NOTHING_MIXED
        cuts = self._cutmix > 0 and (not self._mixup or bool(torch.rand(()) < 0.5))
        alpha = self._cutmix if cuts else self._mixup
        parameter = torch.tensor(alpha, dtype=torch.float32)  # also where all else is of half precision
        share = float(Beta(parameter, parameter).sample())
        partner = torch.randperm(images)
        if not cuts:
            return Mix(partner, share)
        side = round(size * (1 - share) ** 0.5)
        top, left = (int(torch.randint(0, size, ())) - side // 2 for _ in range(2))
        rows, columns = (slice(max(0, start), min(size, start + side)) for start in (top, left))
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return Mix(partner, 1 - area / size**2, (rows, columns))
