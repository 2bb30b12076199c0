"""ImageNet weights: from a local folder or the model hub; never a silent random start."""

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
from torch import nn

from busi_lab.config import NetworkSettings
from busi_lab.errors import UserError, one_line
from busi_lab.models.drop_path import no_paths

_PROBE_SECONDS = 5.0


def create_timm_model(
    backbone: str, weights: str, in_chans: int, dropout: float, image_size: int | None = None, **options: Any
) -> nn.Module:
    """Create a timm image classifier with ImageNet's number of classes.

    Args:
        backbone: timm's model name.
        weights: ``none`` for random initialisation; ``imagenet`` for timm's default weights from the hub or its local
            cache. Files are read by :mod:`busi_lab.models.transfer`.
        in_chans: input channels; ImageNet's first layer is summed to one channel by timm.
        dropout: probability before the last layer.
        image_size: side of the input, pixels, for networks that are built for one size, as transformers are; timm
            adapts their positions. None for their own.
        options: further arguments of timm, such as ``output_stride``.

    Raises:
        UserError: unknown model, or weights that cannot be had or do not fit.
    """
    if not timm.is_model(backbone):
        near = ", ".join(timm.list_models(f"*{backbone.split('.')[0][:6]}*")[:5])
        hint = f"; similar names: {near}" if near else ""
        raise UserError(f"model.backbone={backbone}: not a model of timm {timm.__version__}{hint}")

    described = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    size = {"img_size": image_size} if image_size is not None and described and described.fixed_input_size else {}

    def make(pretrained: bool) -> nn.Module:
        model: nn.Module = timm.create_model(
            backbone, pretrained=pretrained, in_chans=in_chans, drop_rate=dropout, **size, **options
        )
        return model

    return create_with_weights(backbone, weights, make, f"model.backbone={backbone}")


def create_with_weights(backbone: str, weights: str, make: Callable[..., nn.Module], described: str) -> nn.Module:
    """Create a network on a timm model, with the weights that a setting means.

    Args:
        backbone: timm's model name.
        weights: as in :func:`create_timm_model`.
        make: called with ``pretrained``.
        described: the settings that chose the network, for errors.

    Raises:
        UserError: weights that cannot be had or do not fit, or a network that cannot be built.
    """
    if weights == "none":
        return _create(make, backbone, described, pretrained=False)
    if not timm.is_model_pretrained(backbone):
        raise UserError(f"model.weights=imagenet: timm has no pretrained {backbone}; set model.weights=none")
    with hub_access():
        return _create(make, backbone, described, pretrained=True)


def _create(make: Callable[..., nn.Module], backbone: str, described: str, pretrained: bool) -> nn.Module:
    try:
        return make(pretrained=pretrained)
    except (RuntimeError, KeyError, ValueError, TypeError, OSError, NotImplementedError, AssertionError) as error:
        if "'drop_path_rate'" in str(error):
            raise no_paths(described) from None
        if not pretrained:
            raise UserError(f"{described} cannot be built: {one_line(error)[:300]}") from None
        _create(make, backbone, described, pretrained=False)  # raises where the weights are not to blame
        raise UserError(
            f"ImageNet weights of {backbone} cannot be had: the model hub is out of reach and they are neither in its "
            f"cache nor at $BUSI_WEIGHTS/{backbone}.safetensors "
            f"(BUSI_WEIGHTS={os.environ.get('BUSI_WEIGHTS') or 'not set'}); put the file there "
            f"or set model.weights=none ({one_line(error)[:100]})"
        ) from None


def local_file(backbone: str) -> Path | None:
    """``BUSI_WEIGHTS/BACKBONE.safetensors``; None where the hub is to be asked."""
    folder = os.environ.get("BUSI_WEIGHTS")
    path = Path(folder).expanduser() / f"{backbone}.safetensors" if folder else None
    return path if path is not None and path.is_file() else None


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


def refuse_pretrained(settings: NetworkSettings) -> None:
    """For networks that are trained from scratch, or from a file or run of their own.

    Raises:
        UserError: ImageNet weights are asked for.
    """
    if settings.weights != "none":
        raise UserError(
            f"model.weights={settings.weights}: {settings.name} has no pretrained weights; set model.weights=none"
        )
