"""Some of the training scans as if they alone were annotated: to see what annotations are worth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from busi_lab.errors import UserError
from busi_lab.plurals import counted


def choose_annotated(
    case_ids: Sequence[str], labels: Mapping[str, str], groups: Mapping[str, int], share: float, seed: int
) -> tuple[str, ...]:
    """The training scans that stay annotated, sorted; a smaller share is a part of a larger one.

    Whole groups are drawn, class by class, until a class has its share of scans, one at least: who pays for
    annotations pays for patients, and the near-copy of an annotated scan would be an annotation for nothing.

    Args:
        case_ids: of the training scans.
        labels: case id -> class; scans without one are a class of their own.
        groups: case id -> number of its group of near-copies and of its patient; a case that is missing has none.
        share: above 0, at most 1.
        seed: of the order in which groups are drawn.

    Raises:
        UserError: the share is no share.
    """
    if not 0 < share <= 1:
        raise UserError(f"data.annotated={share}: expected a share above 0 and at most 1")
    if share == 1:
        return tuple(sorted(case_ids))
    units: dict[str, list[str]] = defaultdict(list)
    for case_id in sorted(case_ids):
        units[str(groups.get(case_id, f"alone {case_id}"))].append(case_id)
    by_class: dict[str, list[list[str]]] = defaultdict(list)
    for unit in units.values():
        by_class[labels[unit[0]]].append(unit)
    chosen: list[str] = []
    for number, label in enumerate(sorted(by_class)):
        members = by_class[label]
        wanted = max(1, round(share * sum(len(unit) for unit in members)))
        order = np.random.default_rng([seed, 21, number]).permutation(len(members)).tolist()
        taken = 0
        for position in order:
            if taken >= wanted:
                break
            chosen += members[position]
            taken += len(members[position])
    return tuple(sorted(chosen))


def describe_annotated(annotated: int, training: int, unlabelled: int) -> str:
    """What is annotated of what there is to train on, in a line."""
    used = f"; {counted(unlabelled, 'scan')} without one take part" if unlabelled else ""
    return f"annotations: those of {annotated} of {counted(training, 'training scan')} count{used}"
