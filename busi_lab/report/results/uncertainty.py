"""How sure a figure of images in groups is: resamples, intervals and tests that respect the groups.

Images of one patient, or near-copies, are not independent: whole groups are drawn, swapped or counted. How often these
intervals hold the truth, and how often equal models are told apart, is measured by ``tests/simulate_uncertainty.py``.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RESAMPLES = 2000
SWAPS = 9999
FEW_GROUPS = 20
"""Groups, below which nothing is claimed: neither test nor interval can be trusted."""
LEVEL = 0.95
_SEED = 20250516
_Z = 1.959964  # the normal quantile of LEVEL


def cluster_weights(
    clusters: Sequence[str] | NDArray[np.str_], resamples: int = RESAMPLES, seed: int = _SEED
) -> Floats:
    """How often each image is in each resample of the clusters, drawn with replacement.

    Source: Field & Welsh, "Bootstrapping clustered data", JRSS B 69(3), 2007 (the randomized cluster bootstrap).

    Args:
        clusters: ``[N]``, the cluster of each image; images of a cluster come and go together.
        resamples: B.
        seed: equal clusters and seeds give equal draws, which makes two models on the same images a paired draw.

    Returns:
        ``[B, N]``.
    """
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(member.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights: Floats = draws[:, member].astype(np.float64)
    return weights


def effective_groups(clusters: NDArray[np.str_], chosen: Bools | None = None) -> float:
    """How many groups of equal size tell as much as these: ``(sum n)^2 / sum n^2`` over their images n.

    Source: Kish, "Survey Sampling", 1965. One patient with half of all images counts for much less than one of many.

    Args:
        clusters: ``[N]``, the group of each image.
        chosen: ``[N]``, the images that count; None for all.
    """
    _, sizes = np.unique(clusters if chosen is None else clusters[chosen], return_counts=True)
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()) if len(sizes) else 0.0


def percentile_interval(values: Floats, groups: float) -> tuple[float, float]:
    """The 95 % interval of bootstrapped ``values [B]``, those that are not defined left out.

    Percentiles of few groups lie too close together; these are moved outwards by as much as Student's t is wider than
    the normal distribution, and by the bootstrap's divisor (Hesterberg, "What teachers should know about the
    bootstrap", The American Statistician 69(4), 2015, section 3.3).

    Args:
        values: the resampled figure.
        groups: how many groups, of equal size, were resampled: see :func:`effective_groups`.

    Returns:
        Both ends; NaN where no value is defined, or where there are not two groups.
    """
    from scipy.special import ndtr, stdtrit

    known = values[np.isfinite(values)]
    if len(known) == 0 or groups <= 1:
        return math.nan, math.nan
    tail = float(ndtr(math.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, (1 - LEVEL) / 2)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(differences: Floats, groups: float) -> float:
    """Two-sided p of no difference: the level at which :func:`percentile_interval` begins to hold 0.

    Twice the smaller share of resamples on one side of 0, with 1 added (Davison & Hinkley, "Bootstrap Methods and
    their Application", 1997, section 4.4), then widened for few groups as the interval is.

    Args:
        differences: ``[B]``, bootstrapped; those that are not defined are left out.
        groups: as for the interval; without two of them p is 1.
    """
    from scipy.special import ndtri, stdtr

    known = differences[np.isfinite(differences)]
    if groups <= 1:
        return 1.0
    smaller = min(int((known <= 0).sum()), int((known >= 0).sum()))
    share = min(0.5, (smaller + 1) / (len(known) + 1))
    return float(2 * stdtr(groups - 1, ndtri(share) * math.sqrt((groups - 1) / groups)))


def swap_p(differences: Floats, clusters: NDArray[np.str_]) -> float:
    """Two-sided p that two models are equal on the same images: whole groups swap the two models' results at random.

    Where neither model is better, exchanging both results of a group changes nothing, so the sum of differences is
    one of many that are equally likely; p is the share of them that are at least as large (Fisher's randomization
    test with groups as units; Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005, chapter 3). All
    swaps are counted where there are at most 12 groups that differ, else ``SWAPS`` random ones and the observed one.

    Args:
        differences: ``[N]``, first minus second; those that are not defined are left out.
        clusters: ``[N]``.
    """
    known = np.isfinite(differences)
    _, member = np.unique(clusters[known], return_inverse=True)
    sums = np.bincount(member, differences[known]) if known.any() else np.zeros(0)
    sums = sums[np.abs(sums) > 1e-12]
    if len(sums) == 0:
        return 1.0
    if len(sums) <= 12:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean())
    random = np.random.default_rng(_SEED)
    signs = 1.0 - 2.0 * random.integers(0, 2, (SWAPS, len(sums)), dtype=np.int8)
    larger = int((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).sum())
    return (larger + 1) / (SWAPS + 1)


def wilson_interval(share: float, images: float, critical: float = _Z) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, JASA 22, 1927); 0 to 1 where ``images`` is 0.

    ``scipy.stats.binomtest`` has it for whole numbers of images and the normal quantile alone.

    Args:
        share: from 0 to 1.
        images: the number that the share is of; for images in groups that of independent ones that tell as much.
        critical: the quantile that stands for 95 %.
    """
    if images <= 0:
        return 0.0, 1.0
    square = critical * critical
    middle = (share + square / (2 * images)) / (1 + square / images)
    half = critical / (1 + square / images) * math.sqrt(share * (1 - share) / images + square / (4 * images * images))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(parts: Sequence[tuple[Floats, Floats]], draws: Floats) -> tuple[float, float]:
    """The 95 % interval of a mean over images, or of the mean of such means over runs: the bootstrap-t by groups.

    Every resample is measured in its own standard error, which bears skewed figures better than percentiles do: Dice
    has many high values and some zeros (Davison & Hinkley, 1997, section 5.2.2; standard error of a ratio of sums by
    groups: Cochran, "Sampling Techniques", 1977, section 9A).

    Args:
        parts: for each run ``[G]`` sums over the images of a group, and ``[G]`` numbers of these images.
        draws: ``[B, G]``, how often each resample has each group.

    Returns:
        Both ends; NaN without two groups that have images.
    """
    groups = int(np.any([counts > 0 for _, counts in parts], axis=0).sum())
    if groups <= 1:
        return math.nan, math.nan
    middle, error = _mean_and_error(parts, np.ones((1, draws.shape[1])))
    means, errors = _mean_and_error(parts, draws)
    errors = np.maximum(errors, error / 2)  # resamples without the one outlier would lie at any distance
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = (means - middle) / errors
    known = distances[np.isfinite(distances)]
    if len(known) == 0:
        return float(middle[0]), float(middle[0])
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(middle[0] - high * error[0]), float(middle[0] - low * error[0])


def _mean_and_error(parts: Sequence[tuple[Floats, Floats]], draws: Floats) -> tuple[Floats, Floats]:
    """The mean of the parts' means and its standard error by groups, ``[B]`` each."""
    means, pulls = [], np.zeros_like(draws)  # how far a group pulls the mean from where it is
    for sums, counts in parts:
        images = draws @ counts
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(draws @ sums / images)
            pulls += (sums - means[-1][:, None] * counts) / (len(parts) * images[:, None])
    groups = draws.sum(axis=1)
    errors: Floats = np.sqrt((draws * pulls**2).sum(axis=1) * groups / (groups - 1))
    return np.mean(means, axis=0), errors


def share_interval(share: float, resampled: Floats, images: float, groups: float) -> tuple[float, float]:
    """The 95 % interval of a figure from 0 to 1 of images in groups: Wilson's, for fewer images and with Student's t.

    The images are as many as would, drawn one by one, vary as much as the resamples do (the design effect: Korn &
    Graubard, Survey Methodology 24(2), 1998), at most those that there are. Where all or none are right, so that
    resamples do not vary, each group counts as one image.

    Args:
        share: the proportion.
        resampled: ``[B]``, its cluster bootstrap.
        images: that it is a proportion of; infinite for a figure that is none, such as an AUROC.
        groups: as for :func:`percentile_interval`; NaN ends without two of them.
    """
    from scipy.special import stdtrit

    known = resampled[np.isfinite(resampled)]
    if len(known) == 0 or groups <= 1:
        return math.nan, math.nan
    variance = float(known.var()) * groups / (groups - 1)
    alone = share * (1 - share) / variance if variance > 1e-12 and 0 < share < 1 else groups
    return wilson_interval(share, min(alone, float(images)), float(stdtrit(groups - 1, (1 + LEVEL) / 2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """``p_values`` corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, steps)
    return [float(p) for p in corrected]
