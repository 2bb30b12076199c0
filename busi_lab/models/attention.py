"""Attention blocks from the literature, each ``[B, C, H, W]`` -> the same shape."""

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
    """Weights for each row and each column of each channel (Hou et al., *Coordinate attention*, CVPR 2021).

    Args:
        channels: of the features.
        reduction: by which the middle is narrower; it keeps 8 channels at least.
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        middle = max(8, channels // reduction)
        self.shared = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle), nn.Hardswish())
        self.rows = nn.Conv2d(middle, channels, 1)
        self.columns = nn.Conv2d(middle, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """The features, weighted."""
        height, width = features.shape[-2:]
        by_row = features.mean(dim=3, keepdim=True)
        by_column = features.mean(dim=2, keepdim=True).transpose(2, 3)
        rows, columns = self.shared(torch.cat([by_row, by_column], dim=2)).split([height, width], dim=2)
        weighted: Tensor = features * self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid()
        return weighted


class CBAM(nn.Module):
    """Weights for each channel, then for each place (Woo et al., *CBAM*, ECCV 2018).

    Args:
        channels: of the features.
        reduction: by which the middle of the channels' perceptron is narrower.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        middle = max(1, channels // reduction)
        self.channels = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.ReLU(), nn.Conv2d(middle, channels, 1))
        self.places = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        """The features, weighted."""
        mean, most = features.mean(dim=(2, 3), keepdim=True), features.amax(dim=(2, 3), keepdim=True)
        features = features * (self.channels(mean) + self.channels(most)).sigmoid()
        summary = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        weighted: Tensor = features * self.places(summary).sigmoid()
        return weighted
