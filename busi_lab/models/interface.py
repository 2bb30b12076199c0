"""What passes between a task and a network: what is wanted, what is built, and what the network then answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from busi_lab.summary import InitialWeights

Gives = Literal["classes", "masks", "both"]
"""Which logits a network gives, or a task wants."""


class Outputs(NamedTuple):
    """What every network answers to a batch.

    Attributes:
        classes: logits ``[B, K]``; None from a network of masks alone.
        masks: logits ``[B, 1, S, S]``; None from a network of classes alone.
        auxiliary: mask logits ``[B, 1, S, S]`` of shallower or coarser stages, the nearest to ``masks`` first, while a
            network with deep supervision trains; None otherwise.
        class_maps: how much each place speaks for each class, ``[B, K, h, w]``, from a network that can say it; None
            while it trains.
        auxiliary_factors: of the losses of ``auxiliary``; None for 1 / (n + 1) of number n, counted from 1.
    """

    classes: Tensor | None = None
    masks: Tensor | None = None
    auxiliary: tuple[Tensor, ...] | None = None
    class_maps: Tensor | None = None
    auxiliary_factors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Wanted:
    """What a task wants of its network.

    Attributes:
        classes: number of class logits; None for no class output.
        masks: whether it wants mask logits.
        image_size: side of the input, pixels.
        class_names: of the class logits, in their order; empty where they are not known.
    """

    classes: int | None
    masks: bool
    image_size: int
    class_names: tuple[str, ...] = ()

    @property
    def outputs(self) -> Gives:
        """The same in a word."""
        if not self.masks:
            return "classes"
        return "masks" if self.classes is None else "both"


@dataclass(frozen=True)
class BuiltModel:
    """A network with what a task must know of it.

    Attributes:
        network: float ``[B, C, S, S]``, normalised -> :class:`Outputs`.
        heads: the modules behind the backbone; everything else in ``network`` is backbone.
        mean: per input channel, on the scale 0 to 1.
        std: per input channel, on the scale 0 to 1.
        initial: what was taken from a file or another run; None where nothing was.
    """

    network: nn.Module
    heads: tuple[nn.Module, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    initial: InitialWeights | None = None


def answering(network: nn.Module, convert: Callable[[Any], Outputs]) -> nn.Module:
    """Let a network of a library answer with :class:`Outputs`.

    A wrapper would rename its parameters, and older checkpoints would no longer fit.

    Args:
        network: changed in place.
        convert: makes :class:`Outputs` of what the network's own ``forward`` returns.
    """
    network.register_forward_hook(_Converted(convert))
    return network


class _Converted:
    """A forward hook that, unlike a closure, can be copied and pickled with its network."""

    def __init__(self, convert: Callable[[Any], Outputs]) -> None:
        self._convert = convert

    def __call__(self, network: nn.Module, inputs: Any, output: Any) -> Outputs:
        return self._convert(output)
