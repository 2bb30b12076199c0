"""Several views of one scan, whose answers are averaged when a network is used: test-time augmentation."""

import math

from torch import Tensor, nn

from busi_lab.models.interface import Outputs
from busi_lab.models.mean import mean_of
from busi_lab.models.wide import widened

VIEWS = ("none", "flip")
"""The scan alone, or its mirror image as well."""

_HALVES = (math.log(0.5),) * 2


def answer_to_views(network: nn.Module, image: Tensor, views: str) -> Outputs:
    """What a network answers to an image ``[B, C, S, S]``: to its views, masks and maps mirrored back, in the mean.

    Args:
        network: in evaluation mode.
        image: scaled.
        views: one of :data:`VIEWS`. Of the mirror image, probabilities are averaged, and class maps.
    """
    plain: Outputs = network(image)
    if views == "none":
        return plain
    mirrored: Outputs = network(image.flip(-1))
    masks = None if mirrored.masks is None else mirrored.masks.flip(-1)
    mean = mean_of((plain, mirrored._replace(masks=masks)), _HALVES)
    if plain.class_maps is None or mirrored.class_maps is None:
        return mean
    return mean._replace(class_maps=(widened(plain.class_maps) + widened(mirrored.class_maps).flip(-1)) / 2)
