"""Optimiser and scheduler of a task from their settings: groups of parameters with a rate each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import timm.optim
import torch
from torch import nn
from torch.optim import lr_scheduler

from busi_lab.errors import UserError

HALF_EPSILON = 1e-4  # float16 has no normal number below 6.1e-5


def make_optimizer(
    settings: Mapping[str, Any],
    network: nn.Module,
    heads: Sequence[nn.Parameter],
    frozen: Sequence[nn.Parameter],
    thaws: bool,
) -> torch.optim.Optimizer:
    """The optimiser over what is trained.

    Args:
        settings: ``name``, ``lr``, ``weight_decay``, ``backbone_lr``, ``layer_decay``.
        network: whose parameters they are.
        heads: parameters behind the backbone.
        frozen: parameters that are not trained now.
        thaws: whether the frozen ones are trained later; they then have their place from the start, as the state of
            an optimiser cannot be continued with other groups.

    """
    lr, decay = settings["lr"], settings["weight_decay"]
    held = {id(parameter) for parameter in frozen} if not thaws else set()
    if settings.get("layer_decay") is not None:
        groups = _by_layer(network, lr, settings["layer_decay"])
    else:
        own = {id(parameter) for parameter in heads}
        backbone_lr = settings.get("backbone_lr")
        groups = [
            {"params": list(heads), "lr": lr},
            {
                "params": [parameter for parameter in network.parameters() if id(parameter) not in own],
                "lr": lr if backbone_lr is None else backbone_lr,
            },
        ]
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in held]
    optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
        [group for group in groups if group["params"]], opt=settings["name"], lr=lr, weight_decay=decay
    )
    _keep_epsilon(optimizer)
    return optimizer


def check_layer_decay(settings: Mapping[str, Any], network: nn.Module, label: str) -> None:
    """Refuse a rate for each layer where the order of layers is not known.

    Args:
        settings: as in :func:`make_optimizer`.
        network: to be trained.
        label: the network in a word.

    Raises:
        UserError: that is so.
    """
    decay = settings.get("layer_decay")
    if decay is not None and not list(_ordered(network)):
        raise UserError(
            f"optim.layer_decay={decay}: the order of the layers of {label} is not known; use model=timm or "
            "model=fused_encoders, or set optim.backbone_lr instead"
        )


def _by_layer(network: nn.Module, lr: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups whose rate falls by a factor from each layer of a backbone to the one before; the rest has the whole rate.

    The factor is that of BEiT (Bao et al., ICLR 2022); which layers there are is what timm says of its models.
    """
    backbones = list(_ordered(network))
    held = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    try:
        for parameter in held:  # timm would leave them out
            parameter.requires_grad_(True)
        for backbone in backbones:
            layers = timm.optim.param_groups_layer_decay(
                backbone, weight_decay=0.0, weight_decay_exclude_1d=False, layer_decay=layer_decay
            )
            groups += [{"params": list(layer["params"]), "lr": lr * layer["lr_scale"]} for layer in layers]
    finally:
        for parameter in held:
            parameter.requires_grad_(False)
    placed = {id(parameter) for group in groups for parameter in group["params"]}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in placed]
    return [*groups, {"params": rest, "lr": lr}]


def _ordered(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost parts that timm knows the layers of."""
    if hasattr(network, "group_matcher"):
        yield network
        return
    for child in network.children():
        yield from _ordered(child)


def _keep_epsilon(optimizer: torch.optim.Optimizer) -> None:
    """Raise an optimiser's epsilon to what float16 holds: 1e-8 would be 0 there, and the first step no number."""
    for group in optimizer.param_groups:
        half = any(parameter.dtype == torch.float16 for parameter in group["params"])
        if half and isinstance(group.get("eps"), float):
            group["eps"] = max(group["eps"], HALF_EPSILON)


def make_scheduler(
    settings: Mapping[str, Any], optimizer: torch.optim.Optimizer, trainer: Any, monitor: str, monitor_mode: str
) -> dict[str, Any] | None:
    """The scheduler as Lightning takes it; None for none.

    Args:
        settings: ``name`` (none, cosine, warmup_cosine, onecycle, plateau) and what belongs to it.
        optimizer: whose rates it changes.
        trainer: of the run.
        monitor: validation metric that ``plateau`` follows.
        monitor_mode: ``max`` or ``min``.
    """
    name = settings["name"]
    if name == "cosine":
        return {"scheduler": lr_scheduler.CosineAnnealingLR(optimizer, T_max=trainer.max_epochs or 1)}
    if name == "warmup_cosine":
        curve = _WarmupCosine(trainer.estimated_stepping_batches, settings["warmup_fraction"], settings["final"])
        return {"scheduler": lr_scheduler.LambdaLR(optimizer, curve), "interval": "step"}
    if name == "onecycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        steps = int(trainer.estimated_stepping_batches) + 1  # it is stepped once more after the last batch
        cycle = lr_scheduler.OneCycleLR(
            optimizer, max_lr=peaks, total_steps=steps, pct_start=settings["warmup_fraction"]
        )
        return {"scheduler": cycle, "interval": "step"}
    if name == "plateau":
        plateau = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode=monitor_mode,  # type: ignore[arg-type]
            factor=settings["factor"],
            patience=settings["patience"],
        )
        return {"scheduler": plateau, "monitor": monitor}
    return None


class _WarmupCosine:
    """Factor of the rate at a step, counted from 0: it rises in equal parts, then falls by half a cosine.

    The first step has the rate already, where nothing is to be warmed up; the last one has ``final``.
    """

    def __init__(self, steps: float, warmup_fraction: float, final: float) -> None:
        self._rising = round(steps * warmup_fraction)
        self._falling = max(1, steps - 1 - self._rising)
        self._final = final

    def __call__(self, step: int) -> float:
        if step < self._rising:
            return (step + 1) / (self._rising + 1)
        done = min(1.0, (step - self._rising) / self._falling)
        return self._final + (1 - self._final) * (1 + math.cos(math.pi * done)) / 2
