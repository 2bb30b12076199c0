"""Which part of a network keeps its weights: the backbone, or layers by name, for ever or until an epoch."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from busi_lab.errors import UserError
from busi_lab.models.inputs import PaddedNetwork
from busi_lab.models.interface import BuiltModel
from busi_lab.suggestions import nearest


class FrozenPart:
    """The weights and batch-norm statistics of a network that stay as they are.

    Args:
        built: the network with its heads.
        freeze: ``none``, ``backbone``, or names of layers; a layer's name stands for all layers in it.
        label: the network in a word, for errors.

    Raises:
        UserError: a name that is no layer with weights, or nothing is left to train.
    """

    def __init__(self, built: BuiltModel, freeze: str | Sequence[str], label: str) -> None:
        self._trained: tuple[nn.Module, ...] = ()
        self._frozen: tuple[nn.Module, ...] = ()
        if freeze == "backbone":
            self._frozen, self._trained = (built.network,), built.heads
        elif not isinstance(freeze, str):
            self._frozen = tuple(_layer(built.network, name, label) for name in freeze)
        trained = {id(parameter) for module in self._trained for parameter in module.parameters()}
        self.parameters: list[nn.Parameter] = []
        for module in self._frozen:
            self.parameters += [item for item in module.parameters() if id(item) not in trained]
        if self._frozen and len({id(item) for item in self.parameters}) == len(list(built.network.parameters())):
            raise UserError(f"model.freeze={_listed(freeze)}: leaves no layer of {label} to train; name fewer layers")

    def hold(self, held: bool = True) -> None:
        """Take the weights out of training, or put them back."""
        for parameter in self.parameters:
            parameter.requires_grad_(not held)

    def evaluate(self) -> None:
        """Switch the frozen layers to evaluation, so that their batch norm keeps its statistics."""
        for module in self._frozen:
            module.eval()
        for module in self._trained:
            module.train()


def _listed(freeze: Any) -> str:
    return f"[{','.join(map(str, freeze))}]" if isinstance(freeze, list | tuple) else str(freeze)


def _layer(network: nn.Module, name: str, label: str) -> nn.Module:
    inner: nn.Module = network.network if isinstance(network, PaddedNetwork) else network
    layers = {known: layer for known, layer in inner.named_modules() if known and list(layer.parameters())}
    if name not in layers:
        hint = f"{nearest(name, layers)} outermost layers: {', '.join(k for k in layers if '.' not in k)}".strip()
        raise UserError(f"model.freeze: {label} has no layer {name} with weights; {hint}")
    layer: nn.Module = layers[name]
    return layer
