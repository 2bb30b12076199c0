"""The mean of several answers to one batch: of several networks, or of one to several views."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from busi_lab.models.interface import Outputs
from busi_lab.models.wide import widened


def mean_of(answers: Sequence[Outputs], log_shares: Sequence[float] | Tensor) -> Outputs:
    """The weighted mean of probabilities, as logits in float32 at least.

    Args:
        answers: with logits that are finite.
        log_shares: logarithm of the factor of each, ``[N]``; the factors are 1 together.

    Returns:
        classes ``[B, K]``, whose softmax is the mean of the answers' softmax, and masks ``[B, 1, S, S]``, whose
        sigmoid is the mean of their sigmoid; either None where the answers do not have it.
    """
    classes = [widened(answer.classes).log_softmax(dim=1) for answer in answers if answer.classes is not None]
    masks = [widened(answer.masks) for answer in answers if answer.masks is not None]
    inside = _log_mean([F.logsigmoid(logits) for logits in masks], log_shares)
    outside = _log_mean([F.logsigmoid(-logits) for logits in masks], log_shares)
    logits = None if inside is None or outside is None else inside - outside
    return Outputs(_log_mean(classes, log_shares), logits)


def _log_mean(logarithms: list[Tensor], log_shares: Sequence[float] | Tensor) -> Tensor | None:
    """Logarithm of the weighted mean of what has these logarithms; None of nothing."""
    if not logarithms:
        return None
    return torch.stack([each + share for each, share in zip(logarithms, log_shares, strict=True)]).logsumexp(dim=0)
