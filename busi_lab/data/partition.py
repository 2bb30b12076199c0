"""Groups of cases -> parts that hold wanted numbers of each class as nearly as whole groups allow.

Groups go one by one, the largest first, to the part that lacks most of their classes, as scikit-learn's
``StratifiedGroupKFold`` does it; then single groups are moved or exchanged for as long as that comes closer to what is
wanted, or gives a class to a part that has none of it.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Unit = tuple[str, ...]
"""Case ids that stay together."""

_MISSING = 4.0  # what a class that is missing in a part weighs, against at most 2 of all shares of that class
_KINDS = 200  # kinds of groups of a part that are tried against those of another, so that a step stays a millisecond
_STEPS = 100
_LEAST = 1e-9  # a gain below this is rounding

Numbers = NDArray[np.float64]


def partition(
    units: Sequence[Unit],
    labels: Mapping[str, str],
    wanted: Sequence[Mapping[str, float]],
    needed: Collection[str],
    random: np.random.Generator,
) -> list[list[Unit]]:
    """Share groups out.

    Args:
        units: the groups.
        labels: case id -> class.
        wanted: for each part, class -> images; together all images of the class.
        needed: classes that no part should be without.
        random: chooses among equals.

    Returns:
        The groups of each part.
    """
    classes = sorted({labels[case_id] for unit in units for case_id in unit})
    column = {label: number for number, label in enumerate(classes)}
    counts = np.zeros((len(units), len(classes)))
    for number, unit in enumerate(units):
        for case_id in unit:
            counts[number, column[labels[case_id]]] += 1
    totals = counts.sum(axis=0)
    shares = counts / totals
    targets = np.array([[part.get(label, 0) for label in classes] for part in wanted]) / totals
    order = random.permutation(len(units))
    several, sizes = (counts[order] > 0).sum(axis=1) > 1, counts[order].sum(axis=1)
    order = order[np.lexsort((-sizes, ~several))]
    parts: list[list[int]] = [[] for _ in wanted]
    excess = -targets  # [parts, classes], in shares of a class
    for number in order:
        tried = random.permutation(len(parts))
        chosen = int(tried[np.argmin((excess[tried] * shares[number]).sum(axis=1))])
        parts[chosen].append(int(number))
        excess[chosen] += shares[number]
    must = np.array([label in needed for label in classes])
    for _ in range(_STEPS):
        if not _improve(parts, shares, excess, targets, must):
            break
    return [[units[number] for number in part] for part in parts]


def _improve(parts: list[list[int]], shares: Numbers, excess: Numbers, targets: Numbers, must: Any) -> bool:
    """Take the one move or exchange of two groups that gains most; False where none gains."""
    best: tuple[float, int, int, int | None, int | None] = (-_LEAST, 0, 0, None, None)
    kinds = [_kinds(part, shares) for part in parts]
    for one, other in combinations(range(len(parts)), 2):
        given, taken = kinds[one], kinds[other]
        carried = _vectors(given, shares)[:, None] - _vectors(taken, shares)[None]  # from one to other
        change = (2 * carried * (carried + excess[other] - excess[one])).sum(axis=2)
        for part, sign in ((one, -1), (other, 1)):
            held = excess[part] + targets[part]
            empty = (held + sign * carried < _LEAST) & must
            change += _MISSING * (empty.sum(axis=2) - int(((held < _LEAST) & must).sum()))
        lowest = int(change.argmin())
        if change.flat[lowest] < best[0]:
            row, column = divmod(lowest, change.shape[1])
            best = float(change.flat[lowest]), one, other, given[row], taken[column]
    gain, one, other, given_unit, taken_unit = best
    for unit, source, target in ((given_unit, one, other), (taken_unit, other, one)):
        if unit is not None:
            parts[source].remove(unit)
            parts[target].append(unit)
            excess[source] -= shares[unit]
            excess[target] += shares[unit]
    return gain < -_LEAST


def _kinds(part: Sequence[int], shares: Numbers) -> list[int | None]:
    """None, which stands for no group, and one group of each kind of class counts, a limited number."""
    found: dict[bytes, int] = {}
    for number in part:
        if len(found) == _KINDS:
            break
        found.setdefault(shares[number].tobytes(), number)
    return [None, *found.values()]


def _vectors(numbers: Sequence[int | None], shares: Numbers) -> Numbers:
    return np.array([np.zeros(shares.shape[1]) if number is None else shares[number] for number in numbers])
