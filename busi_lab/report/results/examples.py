"""Test images worth a look: the surest mistakes, the lowest and highest Dice, lesions found where there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from busi_lab.report.results.cases import Cases
from busi_lab.report.results.statistics import Indices
from busi_lab.report.results.uncertainty import Floats


@dataclass(frozen=True)
class Example:
    """A test image: its class, and what the run made of it as far as that is why it is shown.

    ``kind`` is lowest, median or highest of the ``dice``; ``area`` is the predicted share of a scan without a lesion.
    """

    image: str
    label: str
    predicted: str | None = None
    probability: float | None = None
    dice: float | None = None
    kind: str = ""
    area: float | None = None


def wrong_classes(found: Cases, count: int) -> list[Example]:
    """At most ``count`` images with a wrong class, the most confident first."""
    order, confidence = _by_confidence(found)
    return [_classified(found, i, confidence) for i in order if not found.right[i]][:count]


def right_classes(found: Cases, count: int) -> list[Example]:
    """At most ``count`` images with the right class, the most confident first."""
    order, confidence = _by_confidence(found)
    return [_classified(found, i, confidence) for i in order if found.right[i]][:count]


def _by_confidence(found: Cases) -> tuple[Indices, Floats]:
    assert found.probabilities is not None
    confidence = found.probabilities.max(axis=1)
    return np.argsort(-confidence, kind="stable"), confidence


def _classified(found: Cases, i: int, confidence: Floats) -> Example:
    name = found.classes.names[int(found.predicted[i])]
    return Example(str(found.images[i]), found.labels[i], name, float(confidence[i]))


def dice_examples(found: Cases, worst: int, middle: int = 0, best: int = 0) -> list[Example]:
    """The images with the lowest, the middle and the highest Dice, as many as asked for, each image once."""
    dice = found.masks["dice"]
    order = np.argsort(dice, kind="stable")[: int(np.isfinite(dice).sum())]  # NaN comes last
    low, rest = order[:worst], order[worst:]
    high = rest[max(0, len(rest) - best) :][::-1] if best else rest[:0]
    rest = rest[: len(rest) - len(high)]
    start = min(max(0, len(order) // 2 - middle // 2 - len(low)), max(0, len(rest) - middle))
    kinds: Sequence[tuple[str, Indices]] = (
        ("lowest", low),
        ("median", rest[start : start + middle]),
        ("highest", high),
    )
    return [
        Example(str(found.images[i]), found.labels[i], dice=float(dice[i]), kind=kind)
        for kind, chosen in kinds
        for i in chosen
    ]


def false_alarms(found: Cases, count: int) -> list[Example]:
    """At most ``count`` images of the class without a lesion with a predicted one, the largest first."""
    shares = found.share("predicted_pixels")
    normal = np.flatnonzero((np.array(found.labels) == found.classes.without_lesion) & (shares > 0))
    chosen = normal[np.argsort(-shares[normal], kind="stable")][:count]
    return [Example(str(found.images[i]), found.labels[i], area=float(shares[i])) for i in chosen]


def join(first: Sequence[Example], second: Sequence[Example]) -> list[Example]:
    """Both lists, an image of both with what is known of it in its first place."""
    joined = {example.image: example for example in first}
    for example in second:
        known = joined.get(example.image)
        joined[example.image] = replace(known, dice=example.dice, kind=example.kind) if known else example
    return list(joined.values())
