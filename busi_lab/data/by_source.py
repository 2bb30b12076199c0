"""One of several datasets is tested, the others are learnt from; see :mod:`busi_lab.data.mix`."""

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from busi_lab.data.index import Case
from busi_lab.data.mix import SOURCE
from busi_lab.errors import UserError


class LeftOut(NamedTuple):
    """What ``split=by_source`` makes of the scans.

    Attributes:
        dataset: case ids of the dataset that is tested, all that stand in the index.
        tested: those of them that may be used.
        learnt: case ids of the others that may be used, but for those that share a group with a tested one.
        datasets: how many there are.
    """

    dataset: frozenset[str]
    tested: frozenset[str]
    learnt: frozenset[str]
    datasets: int


def leave_out(place: str, cases: Sequence[Case], usable: Set[str], groups: Mapping[str, int], fold: int) -> LeftOut:
    """Leave dataset number ``fold``, in the order of their names, out of what is learnt from.

    Args:
        place: the split in messages.
        cases: all of the index, so that a number means the same dataset for every task.
        usable: case ids that may be used.
        groups: case id -> number of its group of near-copies, or of its patient; a case that is missing has none.
        fold: from 0.

    Raises:
        UserError: there are no datasets to tell apart, there is no such one, or no scan to test or to learn from.
    """
    source_of = {case.case_id: dict(case.further).get(SOURCE, "") for case in cases}
    names = sorted(set(source_of.values()) - {""})
    if len(names) < 2 or "" in source_of.values():
        raise UserError(
            f"{place}: expected scans of two datasets at least, each with its name in the column {SOURCE}, as data=mix "
            f"gives it; found {', '.join(names) or 'none'}"
        )
    if not 0 <= fold < len(names):
        raise UserError(f"split.fold={fold}: expected 0 to {len(names) - 1}, for {', '.join(names)}")
    dataset = frozenset(case_id for case_id, source in source_of.items() if source == names[fold])
    tested = dataset.intersection(usable)
    if not tested:
        raise UserError(f"{place}: no scan of {names[fold]} can be used, which split.fold={fold} tests; choose another")
    known = {groups[case_id] for case_id in tested if case_id in groups}
    learnt = frozenset(case_id for case_id in usable - tested if groups.get(case_id) not in known)
    if not learnt:
        raise UserError(f"{place}: no scan of the others than {names[fold]} (split.fold={fold}) can be learnt from")
    return LeftOut(dataset, tested, learnt, len(names))
