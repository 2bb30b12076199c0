"""Disturbed copies of a batch of scans, in which everything stays where it is."""

import torch
from torch import Tensor

GAIN, GAMMA, NOISE, BOX = 0.3, 0.3, 0.1, 0.3
"""Largest relative change of gain and of gamma; standard deviation of speckle; side of the erased box, as a share."""


def perturbed(images: Tensor, step: int) -> Tensor:
    """Change gain, gamma and speckle of each scan, and erase a box of it.

    A function of the scans, the step and torch's initial seed: a run that is continued sees the same.

    Args:
        images: uint8 ``[B, 1, S, S]``.
        step: number of steps that the optimiser has made.

    Returns:
        uint8 ``[B, 1, S, S]``.
    """
    random = torch.Generator().manual_seed((torch.initial_seed() + 7919 * step) % 2**63)
    count, side = len(images), images.shape[-1]
    shape, device = (count, 1, 1, 1), images.device
    gain = 1 + GAIN * (2 * torch.rand(shape, generator=random) - 1)
    gamma = 1 + GAMMA * (2 * torch.rand(shape, generator=random) - 1)
    noise = 1 + NOISE * torch.randn(images.shape, generator=random)
    corners = (torch.rand(count, 2, generator=random) * (1 - BOX) * side).long()
    levels = (images.float() / 255) ** gamma.to(device) * gain.to(device) * noise.to(device)
    levels = (255 * levels).round().clamp(0, 255).byte()
    box = round(BOX * side)
    for number, (top, left) in enumerate(corners.tolist()):
        part = levels[number, :, top : top + box, left : left + box]
        part.fill_(int(part.float().mean()))
    return levels
