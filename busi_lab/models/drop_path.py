"""Residual blocks that are left out at random in training: stochastic depth, Huang et al., ECCV 2016."""

from typing import Any

import torch
from timm.layers import DropPath
from torch import nn

from busi_lab.errors import UserError


def drop_path_options(rate: float) -> dict[str, Any]:
    """What timm is told of ``model.drop_path``: the probability of the last block, which rises from 0 at the first.

    Raises:
        UserError: it is no probability below 1.
    """
    if not 0 <= rate < 1:
        raise UserError(f"model.drop_path={rate}: expected at least 0 and less than 1")
    return {"drop_path_rate": rate} if rate else {}


def check_drop_path(network: nn.Module, rate: float, in_chans: int, image_size: int, described: str) -> None:
    """Let a blank image pass, and see whether it meets blocks that can be left out: timm does not tell.

    Args:
        network: as it was built with :func:`drop_path_options`.
        rate: of these options.
        in_chans: of its input.
        image_size: side of its input, pixels.
        described: the setting that chose the backbone, for errors.

    Raises:
        UserError: it meets none.
    """
    if not rate:
        return
    met: list[nn.Module] = []
    paths = [module for module in network.modules() if isinstance(module, DropPath) and module.drop_prob]
    hooks = [path.register_forward_hook(lambda module, inputs, output: met.append(module)) for path in paths]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, in_chans, image_size, image_size))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    if not met:
        raise no_paths(described)


def no_paths(described: str) -> UserError:
    """The error of a backbone without such blocks."""
    return UserError(
        f"model.drop_path: {described} has no residual blocks that could be left out; set model.drop_path=0, or choose "
        "another backbone"
    )
