"""What in a scan speaks for a class: Grad-CAM and occlusion, both of Captum, and how well they hit the lesion."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from busi_lab.data.resizing import resize_scan
from busi_lab.data.scan import Gray, Mask
from busi_lab.errors import UserError
from busi_lab.models.exported import Exported
from busi_lab.tasks import BaseTask

Heat = NDArray[np.float32]

_WINDOW = 8  # windows of the occlusion side by side
_AT_ONCE = 32  # occluded copies in a batch


class ClassLogits(nn.Module):
    """The class logits of a task's network, whether or not it has masks as well.

    Args:
        task: with a class output.
    """

    def __init__(self, task: BaseTask) -> None:
        super().__init__()
        self.network = task.network

    def forward(self, image: Tensor) -> Tensor:
        """Map the network's input ``[B, C, S, S]`` to logits ``[B, 3]``."""
        logits: Tensor = self.network(image).classes
        return logits


class Explainer:
    """Explanations of classifiers that are loaded already.

    Methods: ``gradcam`` (Selvaraju et al., ICCV 2017) on the last features that have a place in the image;
    ``occlusion`` (Zeiler & Fergus, ECCV 2014): how far the class's probability falls where a window is grayed out.
    Both are of the scan itself, whatever ``task.views``.

    Args:
        tasks: with a class output; their maps are averaged.
        methods: names of the methods.

    Raises:
        UserError: Captum is missing, no task has classes, or a network that Grad-CAM does not suit.
    """

    def __init__(self, tasks: Sequence[BaseTask], methods: Sequence[str]) -> None:
        try:
            import captum.attr as captum
        except ImportError:
            raise UserError("explanations need Captum: pip install 'busi-lab[explain]'") from None
        if not tasks or not all(task.needs_labels for task in tasks):
            raise UserError("explanations are of a class: give a classifier or a joint run")
        if unknown := sorted(set(methods) - METHODS.keys()):
            raise UserError(f"explanation {unknown[0]}: expected {' or '.join(METHODS)}")
        self._classes = tasks[0].roles
        self._methods = {
            method: [(task, METHODS[method](captum, task)) for task in tasks] for method in dict.fromkeys(methods)
        }

    def explain(self, pixels: Gray, label: str) -> dict[str, Heat]:
        """Maps of what speaks for ``label``, by method.

        Args:
            pixels: uint8 ``[H, W]``.
            label: a class.

        Returns:
            float32 ``[H, W]``, 0 to 1; all 0 where nothing speaks for the class.
        """
        target, (height, width) = self._classes.number(label), pixels.shape
        found: dict[str, Heat] = {}
        for method, pairs in self._methods.items():
            heats = []
            for task, attribute in pairs:
                heat = attribute(_network_input(task, pixels), target).clamp(min=0).cpu().numpy().astype(np.float32)
                heats.append(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR) / max(heat.max(), 1e-12))
            found[method] = np.stack(heats).mean(axis=0)
        return found


def _network_input(task: BaseTask, pixels: Gray) -> Tensor:
    image = torch.from_numpy(np.array(resize_scan(pixels, task.image_size)))[None, None].to(task.device)
    return task.scale(image).detach()


Attribute = Callable[[Tensor, int], Tensor]
"""From an input ``[1, C, S, S]`` and a class to a map ``[h, w]``."""


def _gradcam(captum: Any, task: BaseTask) -> Attribute:
    if isinstance(task.network, Exported):
        raise UserError("gradcam needs gradients, which an exported run lacks; use occlusion, or the run itself")
    model = ClassLogits(task)
    method = captum.LayerGradCam(model, last_features(task))

    def attribute(image: Tensor, target: int) -> Tensor:
        # a frozen backbone has gradients only if its input asks for them
        heat: Tensor = method.attribute(image.requires_grad_(), target=target, relu_attributions=True)
        return heat.detach()[0, 0]

    return attribute


def _occlusion(captum: Any, task: BaseTask) -> Attribute:
    model = ClassLogits(task)
    method = captum.Occlusion(lambda image: model(image).float().softmax(dim=1))

    @torch.no_grad()
    def attribute(image: Tensor, target: int) -> Tensor:
        channels, side = image.shape[1], max(2, task.image_size // _WINDOW)
        heat: Tensor = method.attribute(
            image,
            target=target,
            sliding_window_shapes=(channels, side, side),
            strides=(channels, max(1, side // 2), max(1, side // 2)),
            baselines=image.mean(dim=(2, 3), keepdim=True).expand_as(image),
            perturbations_per_eval=_AT_ONCE,
        )
        return heat[0].mean(dim=0)

    return attribute


METHODS: Mapping[str, Callable[[Any, BaseTask], Attribute]] = {"gradcam": _gradcam, "occlusion": _occlusion}
"""Methods by their names."""


def last_features(task: BaseTask) -> nn.Module:
    """The module before the heads that gives the last features with a place in the image.

    Raises:
        UserError: what follows those features are tokens, as in a transformer, so that they do not decide the class.
    """
    heads = {module for head in task.head_modules for module in head.modules()}
    seen: list[tuple[nn.Module, bool]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if module not in heads and isinstance(output, Tensor) and output.dim() > 2 and max(output.shape[-2:]) > 1:
            # the input is square; what is not is a row of tokens, or has its channels last
            seen.append((module, output.dim() == 4 and output.shape[2] == output.shape[3]))

    hooks = [module.register_forward_hook(note) for module in task.network.modules()]
    try:
        with torch.no_grad():
            blank = torch.zeros(1, 1, task.image_size, task.image_size, dtype=torch.uint8, device=task.device)
            task.network(task.scale(blank))
    finally:
        for hook in hooks:
            hook.remove()
    if not (seen and seen[-1][1]):
        raise UserError(f"gradcam needs convolutional features, which {task.model_name} lacks; use occlusion")
    calls = Counter(module for module, _ in seen)
    return next(module for module, is_map in reversed(seen) if is_map and calls[module] == 1)  # Captum takes no others


def pointing_hit(heat: Heat, mask: Mask) -> bool:
    """Whether the highest point of a map ``[H, W]`` lies in the lesion ``[H, W]``.

    Source: the pointing game of Zhang et al., ECCV 2016, without its tolerance. Where the map is flat, it points
    nowhere and does not hit.
    """
    return bool(heat.max() > heat.min() and mask[np.unravel_index(int(heat.argmax()), heat.shape)])


def energy_inside(heat: Heat, mask: Mask) -> float:
    """Share of a map's sum that lies in the lesion, 0 to 1 (Wang et al., Score-CAM, CVPR Workshops 2020); 0 if none."""
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total else 0.0
