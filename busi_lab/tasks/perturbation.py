"""Disturbed copies of a batch of scans, in which everything stays where it is."""

from typing import Any

import torch
from torch import Tensor

GAIN, GAMMA, NOISE, BOX = 0.3, 0.3, 0.1, 0.3
"""Largest relative change of gain and of gamma; standard deviation of speckle; side of the erased box, as a share."""


def perturbed(images: Tensor, step: int) -> Tensor:
    """Change gain, gamma and speckle of each scan, and erase a box of it.

    A function of the scans, the step, torch's initial seed and the kind of device: a run that is continued on the same
    kind sees the same. Nothing of it waits for the device.

    Args:
        images: uint8 ``[B, 1, S, S]``.
        step: number of steps that the optimiser has made.

    Returns:
        uint8 ``[B, 1, S, S]``.
    """
    count, side, device = len(images), images.shape[-1], images.device
    random = torch.Generator(device).manual_seed((torch.initial_seed() + 7919 * step) % 2**63)
    shape, here = (count, 1, 1, 1), dict[str, Any](generator=random, device=device)
    gain = 1 + GAIN * (2 * torch.rand(shape, **here) - 1)
    gamma = 1 + GAMMA * (2 * torch.rand(shape, **here) - 1)
    noise = 1 + NOISE * torch.randn(images.shape, **here)
    corners = (torch.rand(count, 2, **here) * (1 - BOX) * side).long()
    levels = (255 * (images.float() / 255) ** gamma * gain * noise).round().clamp(0, 255)
    box, places = round(BOX * side), torch.arange(side, device=device)
    apart = places - corners[:, :, None]  # how far below and beside the corner of its box each place is: [B, 2, S]
    below, beside = ((apart >= 0) & (apart < box)).unbind(dim=1)
    inside = (below[:, :, None] & beside[:, None, :])[:, None]
    mean = (levels * inside).sum(dim=(1, 2, 3), keepdim=True) / box**2
    return torch.where(inside, mean.floor(), levels).byte()
