"""Figures with their intervals: of one run, or the mean over runs that repeat each other."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from busi_lab.report.results.cases import Cases, pool
from busi_lab.report.results.uncertainty import FEW_GROUPS, Floats, mean_interval, percentile_interval, share_interval

Figures = Callable[[Cases, Floats], Mapping[str, Floats]]
"""Figures of images under weights ``[B, N]``, ``[B]`` each, by their names."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, NaN where it is not defined.

    ``groups`` are those that it hangs on, ``runs`` those that define it.
    """

    value: float
    low: float
    high: float
    groups: int
    runs: int = 1

    @property
    def few(self) -> bool:
        """Whether the groups are too few for the interval to be trusted."""
        return self.groups < FEW_GROUPS


def estimate(parts: Sequence[Cases], figures: Figures = Cases.figures) -> dict[str, Estimate]:
    """The mean over runs of each figure that they define, with its interval.

    Scores of different networks are never ranked together: each run has its own ROC curve. One draw of the groups
    counts for all runs, so that images which several runs were tested on come and go in all of them.

    Args:
        parts: the images of each run; folds share none, seeds all.
        figures: of one run.
    """
    whole = pool(parts)
    each = _figures_of_each(parts, whole, np.ones((1, len(whole))), figures)
    values = _means(each)
    runs = {name: sum(name in found and bool(np.isfinite(found[name][0])) for found in each) for name in values}
    resampled = mean_figures(parts, whole, whole.weights(), figures)
    found = {}
    for name, value in values.items():
        if np.isfinite(value[0]):
            found[name] = interval_of(whole, name, float(value[0]), resampled[name])
            if all(name in part.masks for part in parts):
                low, high = mean_interval(*_by_groups(parts, whole, name))
                found[name] = replace(found[name], low=max(0.0, low), high=min(high, _HIGHEST.get(name, high)))
            found[name] = replace(found[name], runs=runs[name])
    return found


_HIGHEST = {"dice": 1.0, "iou": 1.0}


def _by_groups(parts: Sequence[Cases], whole: Cases, name: str) -> tuple[list[tuple[Floats, Floats]], Floats]:
    """Sums and numbers of the images that each run defines a mask's figure on, and draws, for the bootstrap-t."""
    _, first, member = np.unique(whole.clusters, return_index=True, return_inverse=True)
    found = []
    for part in parts:
        values, place = part.masks[name], member[np.searchsorted(whole.images, part.images)]
        known = np.isfinite(values)
        counts = np.bincount(place[known], minlength=len(first)).astype(np.float64)
        sums = np.bincount(place[known], values[known], len(first)).astype(np.float64)
        if known.any():
            found.append((sums, counts))
    return found, whole.weights()[:, first]


def mean_figures(
    parts: Sequence[Cases], whole: Cases, weights: Floats, figures: Figures = Cases.figures
) -> dict[str, Floats]:
    """The mean over ``parts`` of each figure, ``[B]``, under weights ``[B, N]`` of the images of ``whole``.

    A run that does not define a figure, such as an AUROC without a positive image, is left out of its mean.
    """
    if len(parts) <= _TOGETHER:
        return _means(_figures_of_each(parts, whole, weights, figures))
    sums: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    absent = {name for part in parts for name in figures(part, np.ones((1, len(part)))) if name.endswith("_present")}
    for part in parts:  # thousands of runs at once would fill the memory
        (found,) = _figures_of_each([part], whole, weights, figures, absent)
        for name, values in found.items():
            known = np.isfinite(values)
            sums[name] = sums.get(name, 0.0) + np.where(known, values, 0.0)
            counts[name] = counts.get(name, 0.0) + known
    with np.errstate(invalid="ignore"):
        return {name: sums[name] / counts[name] for name in sums}


_TOGETHER = 100  # runs whose resampled figures are held at once


def _figures_of_each(
    parts: Sequence[Cases], whole: Cases, weights: Floats, figures: Figures, absent: Set[str] = frozenset()
) -> list[dict[str, Floats]]:
    """The figures of each part; averages over present classes for all of them, where one of them lacks a class."""
    each = [dict(figures(part, weights[:, np.searchsorted(whole.images, part.images)])) for part in parts]
    absent = absent | {name for found in each for name in found if name.endswith("_present")}
    for found in each:  # where all classes are there, an average over those that are there is the plain one
        for name in absent - found.keys():
            if (plain := name.removesuffix("_present")) in found:
                found[name] = found.pop(plain)
    return each


def _means(each: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    names = dict.fromkeys(name for found in each for name in found)
    return {name: _mean([found[name] for found in each if name in found]) for name in names}


def _mean(values: Sequence[Floats]) -> Floats:
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean


def interval_of(cases: Cases, name: str, value: float, resampled: Floats) -> Estimate:
    """A figure of ``cases`` with the interval that its resamples ``[B]`` and the number of groups give."""
    effective = cases.effective_groups(name)
    if name.startswith("accuracy") or name == "false_positive_rate":
        ends = share_interval(value, resampled, int(cases.sides(name)[0].sum()), effective)
    elif name.startswith("auroc"):
        ends = share_interval(value, resampled, math.inf, effective)
    else:
        ends = percentile_interval(resampled, effective)
    return Estimate(value, *ends, cases.groups_of(name))


def difference_of(first: Cases, second: Cases, name: str, value: float, resampled: Floats) -> Estimate:
    """A difference of one figure between two sets of images; the set with fewer groups decides how sure it is."""
    effective = min(first.effective_groups(name), second.effective_groups(name))
    groups = min(first.groups_of(name), second.groups_of(name))
    return Estimate(value, *percentile_interval(resampled, effective), groups)


@dataclass(frozen=True)
class Results:
    """What runs had right on each image, or their Dice, as the mean over the runs that were tested on it, ``[N]``."""

    images: NDArray[np.str_]
    clusters: NDArray[np.str_]
    values: Floats


def mean_results(parts: Sequence[Cases], measure: str) -> Results:
    """``accuracy`` or ``dice`` of each image over the runs of an experiment: of a typical run, not of an ensemble."""
    whole = pool(parts)
    total, count = np.zeros(len(whole)), np.zeros(len(whole))
    for part in parts:
        place, values = np.searchsorted(whole.images, part.images), part.results(measure)
        known = np.isfinite(values)
        total[place[known]] += values[known]
        count[place[known]] += 1
    means = np.divide(total, count, out=np.full(len(whole), math.nan), where=count > 0)
    return Results(whole.images, whole.clusters, means)
