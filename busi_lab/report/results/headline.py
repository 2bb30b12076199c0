"""What an experiment found, in counts of images that a clinician can picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from busi_lab.classes import Classes
from busi_lab.report.results.cases import Cases
from busi_lab.report.results.clinical import share_estimate
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.results.uncertainty import FEW_GROUPS, Bools


@dataclass(frozen=True)
class Share:
    """So many of ``whole`` images, with the 95 % interval of the share; NaN where no predictions can be read."""

    count: int
    whole: int
    low: float = math.nan
    high: float = math.nan
    groups: int | None = None

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.whole

    @property
    def few(self) -> bool:
        """Whether the groups are too few for the interval to be trusted."""
        return self.groups is not None and self.groups < FEW_GROUPS


@dataclass(frozen=True)
class Headline:
    """What was found on the test images of the first pair of seeds, folds together; None where it is not known.

    ``found`` are images of the positive class that were called so, ``alarms`` those of each other class that were;
    ``right`` has every image. ``missed`` are scans with a lesion and an empty mask, ``marked`` those without a lesion
    and with a predicted one.
    """

    experiment: Experiment
    found: Share | None = None
    alarms: tuple[tuple[str, Share], ...] = ()
    right: Share | None = None
    missed: Share | None = None
    marked: Share | None = None

    @property
    def one_of_several(self) -> bool:
        """Whether the experiment has further seeds, of which the counts say nothing."""
        return len(self.experiment.repeats) > 1


def headline(experiment: Experiment) -> Headline:
    """The counts of an experiment, from its predictions, or from its confusion matrices without intervals."""
    rows = next(iter(experiment.repeats.values()))
    parts = [experiment.parts[row.folder] for row in rows if row.folder in experiment.parts]
    if len(parts) < len(rows):
        matrices = [matrix for row in rows if (matrix := row.confusion()) is not None]
        if len(matrices) < len(rows):
            return Headline(experiment)
        return _from_counts(experiment, np.sum(matrices, axis=0).astype(int).tolist(), experiment.classes)
    sides = _of_classes(parts) if all(part.probabilities is not None for part in parts) else (None, (), None)
    masks = _of_masks(parts) if all(part.masks for part in parts) else (None, None)
    return Headline(experiment, *sides, *masks)


def _from_counts(experiment: Experiment, counts: Sequence[Sequence[int]], classes: Classes) -> Headline:
    right = Share(sum(line[i] for i, line in enumerate(counts)), sum(map(sum, counts)))
    if classes.positive is None:
        return Headline(experiment, right=right if right.whole else None)
    column = classes.number(classes.positive)
    each = {name: Share(line[column], sum(line)) for name, line in zip(classes.names, counts, strict=True) if sum(line)}
    found = each.pop(classes.positive, None)
    return Headline(experiment, found, tuple(each.items()), right if right.whole else None)


def _of_classes(parts: Sequence[Cases]) -> tuple[Share | None, tuple[tuple[str, Share], ...], Share | None]:
    classes = parts[0].classes
    actual, called = (np.concatenate([getattr(part, name) for part in parts]) for name in ("actual", "predicted"))
    right = _share(parts, np.ones(len(actual), bool), actual == called)
    if classes.positive is None:
        return None, (), right
    positive = called == classes.number(classes.positive)
    each = {name: _share(parts, actual == i, positive) for i, name in enumerate(classes.names)}
    found = each.pop(classes.positive)
    return found, tuple((name, share) for name, share in each.items() if share), right


def _of_masks(parts: Sequence[Cases]) -> tuple[Share | None, Share | None]:
    lesion, found = (np.concatenate([part.masks[name] for part in parts]) for name in ("lesion_pixels", "found"))
    known = np.isfinite(lesion) & np.isfinite(found)
    return _share(parts, known & (lesion > 0), found == 0), _share(parts, known & (lesion == 0), found == 1)


def _share(parts: Sequence[Cases], side: Bools, right: Bools) -> Share | None:
    """How many of ``side`` are ``right``, both ``[N]`` of all parts; None for none."""
    if not side.any():
        return None
    found = share_estimate(np.concatenate([part.clusters for part in parts]), side, right)
    return Share(int((side & right).sum()), int(side.sum()), found.low, found.high, found.groups)
