"""Where initial weights come from: a local folder, a file, or the model hub; never a silent random start."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from busi_lab.errors import UserError, one_line

_PROBE_SECONDS = 5.0


def create_timm_model(
    backbone: str, weights: str, in_chans: int, dropout: float, image_size: int | None = None
) -> nn.Module:
    """Create a timm image classifier with ImageNet's or a file's own number of classes.

    Args:
        backbone: timm's model name.
        weights: ``none`` for random initialisation; ``imagenet`` for ``BUSI_WEIGHTS/BACKBONE.safetensors`` where
            that file exists, else timm's default weights from the hub or its local cache; or the path of a
            state dict for this model.
        in_chans: input channels; ImageNet's first layer is summed to one channel by timm.
        dropout: probability before the last layer.
        image_size: side of the input, pixels, for networks that are built for one size, as transformers are; timm
            adapts their positions. None for their own.

    Raises:
        UserError: unknown model, or weights that cannot be had or do not fit.
    """
    if not timm.is_model(backbone):
        near = ", ".join(timm.list_models(f"*{backbone.split('.')[0][:6]}*")[:5])
        hint = f"; similar names: {near}" if near else ""
        raise UserError(f"model.backbone={backbone}: not a model of timm {timm.__version__}{hint}")

    described = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    size = {"img_size": image_size} if image_size is not None and described and described.fixed_input_size else {}

    def make(pretrained: bool, **more: Any) -> nn.Module:
        if "pretrained_cfg_overlay" in more:  # keep the file's own head; the caller replaces it
            more["num_classes"] = more["pretrained_cfg_overlay"]["num_classes"]
        model: nn.Module = timm.create_model(
            backbone, pretrained=pretrained, in_chans=in_chans, drop_rate=dropout, **size, **more
        )
        return model

    return create_with_weights(backbone, weights, make, f"model.backbone={backbone}")


def create_with_weights(backbone: str, weights: str, make: Callable[..., nn.Module], described: str) -> nn.Module:
    """Create a network on a timm model, with the weights that a setting means.

    Args:
        backbone: timm's model name.
        weights: as in :func:`create_timm_model`.
        make: called with ``pretrained`` and, for a local file, timm's ``pretrained_cfg_overlay``.
        described: the settings that chose the network, for errors.

    Raises:
        UserError: weights that cannot be had or do not fit, or a network that cannot be built.
    """
    if weights == "none":
        return _create(make, backbone, described, pretrained=False)
    path = _find_file(backbone, weights)
    if path is not None:
        overlay = {"file": str(path), "num_classes": _head_size(backbone, path)}
        return _create(make, backbone, described, str(path), pretrained=True, pretrained_cfg_overlay=overlay)
    if not timm.is_model_pretrained(backbone):
        raise UserError(f"model.weights=imagenet: timm has no pretrained {backbone}; set model.weights=none")
    with hub_access():
        return _create(make, backbone, described, pretrained=True)


def _create(
    make: Callable[..., nn.Module], backbone: str, described: str, source: str | None = None, **options: Any
) -> nn.Module:
    try:
        return make(**options)
    except (RuntimeError, KeyError, ValueError, TypeError, OSError, NotImplementedError, AssertionError) as error:
        if not options["pretrained"]:
            raise UserError(f"{described} cannot be built: {one_line(error)[:300]}") from None
        _create(make, backbone, described, pretrained=False)  # raises where the weights are not to blame
        if source:
            raise UserError(
                f"model.weights={source} does not fit {backbone}: {one_line(error)[:160]}; "
                f"give a state dict of timm's {backbone}"
            ) from None
        raise UserError(
            f"ImageNet weights of {backbone} cannot be had: the model hub is out of reach and they are neither in its "
            f"cache nor at $BUSI_WEIGHTS/{backbone}.safetensors "
            f"(BUSI_WEIGHTS={os.environ.get('BUSI_WEIGHTS') or 'not set'}); put the file there "
            f"(README, 'Weights without internet') or set model.weights=none ({one_line(error)[:100]})"
        ) from None


def _find_file(backbone: str, weights: str) -> Path | None:
    """The local file that ``weights`` stands for; None where the hub is to be asked."""
    if weights == "imagenet":
        folder = os.environ.get("BUSI_WEIGHTS")
        local = Path(folder).expanduser() / f"{backbone}.safetensors" if folder else None
        return local if local is not None and local.is_file() else None
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"model.weights={weights}: expected imagenet, none, or an existing file; found no such file")
    return path


def _head_size(backbone: str, path: Path) -> int:
    """Classes of the head stored in a weight file; 0 where it has none.

    Raises:
        UserError: the file is no state dict of tensors.
    """
    try:
        tensors = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile, pickle and torch each raise their own
        raise UserError(
            f"model.weights={path}: not a weight file ({one_line(error)[:200]}); expected .safetensors or a "
            ".pth state dict of tensors"
        ) from None
    names = timm.get_pretrained_cfg(backbone, allow_unregistered=True).classifier
    name = names if isinstance(names, str) else (names or [""])[0]
    head = tensors.get(f"{name}.weight")
    return int(head.shape[0]) if isinstance(head, torch.Tensor) else 0


@contextmanager
def hub_access() -> Iterator[None]:
    """Spare the hub client its long retries where the hub does not answer."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = before or not _reachable(huggingface_hub.constants.ENDPOINT)
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError, http.client.HTTPException):
        return False
