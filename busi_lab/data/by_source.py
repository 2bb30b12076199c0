"""One of several datasets is tested, the others are learnt from; see :mod:`busi_lab.data.mix`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from busi_lab.data.index import Case
from busi_lab.data.mix import SOURCE
from busi_lab.errors import UserError


class LeftOut(NamedTuple):
    """What ``split=by_source`` makes of the scans.

    Attributes:
        tested: case ids of the dataset that is tested.
        learnt: cases of the others, but for those that share a group with it.
        datasets: how many there are.
    """

    tested: frozenset[str]
    learnt: tuple[Case, ...]
    datasets: int


def leave_out(place: str, cases: Sequence[Case], groups: Mapping[str, int], fold: int) -> LeftOut:
    """Leave dataset number ``fold``, in the order of their names, out of what is learnt from.

    Args:
        place: the split in messages.
        cases: that may be used.
        groups: case id -> number of its group of near-copies, or of its patient; a case that is missing has none.
        fold: from 0.

    Raises:
        UserError: there are no datasets to tell apart, or there is no such one.
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
    tested = frozenset(case_id for case_id, source in source_of.items() if source == names[fold])
    known = {groups[case_id] for case_id in tested if case_id in groups}
    learnt = [case for case in cases if case.case_id not in tested and groups.get(case.case_id) not in known]
    return LeftOut(tested, tuple(learnt), len(names))
