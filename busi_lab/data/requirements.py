"""What a task needs of a dataset: its classes, labels and masks; what lacks them is left out or refused."""

import logging
from collections.abc import Collection

from busi_lab.classes import Classes
from busi_lab.data.index import Index
from busi_lab.errors import UserError
from busi_lab.plurals import counted

log = logging.getLogger(__name__)


def check_classes(index: Index, roles: Classes, chosen: Collection[str] | None) -> None:
    """Refuse a dataset of classes that the network does not have.

    Args:
        index: the dataset.
        roles: the classes of the network.
        chosen: the classes that take part; None for all.

    Raises:
        UserError: it has another one.
    """
    found = {case.label for case in index.cases} - {""}
    used = found if chosen is None else found & set(chosen)
    if foreign := sorted(used - set(roles.names)):
        raise UserError(
            f"{index.root} has scans of the class {foreign[0]}, which this run cannot predict; expected "
            f"{', '.join(roles.names)}: leave others out with data.classes, or take a run that has learnt them"
        )


def choose_half(index: Index) -> tuple[bool, bool]:
    """Whether a task of labels and masks takes labels, and whether it takes masks: both, unless no lesion has both.

    A normal scan has a mask, an empty one, whatever files there are: it says nothing of the others.
    """
    labelled = {case.case_id for case in index.cases if case.label}
    masked = {case.case_id for case in index.cases if case.mask_known}
    lesions = {c.case_id for c in index.cases if not c.label or c.label != index.classes.without_lesion}
    if labelled & masked & lesions or not (labelled | masked) & lesions:
        return True, True
    labels = len(labelled) >= len(masked)
    word, other = ("labels", "masks") if labels else ("masks", "labels")
    log.info("no scan with a lesion has both label and mask: the %s are judged, %s are not", word, other)
    return labels, not labels


def find_unusable(index: Index, labels: bool, masks: bool) -> set[str]:
    """The case ids that lack a label or a mask, where these are needed; says how many.

    Raises:
        UserError: that is all of them.
    """
    needed = " or ".join(word for word, wanted in (("label", labels), ("mask", masks)) if wanted)
    unusable = {case.case_id for case in index.cases if (labels and not case.label) or (masks and not case.mask_known)}
    if len(unusable) == len(index.cases):
        raise UserError(
            f"{index.root}: all {len(unusable)} scans are without a {needed}, which this task needs; "
            f"{_where(index)}, or choose another task"
        )
    if unusable:
        scans = counted(len(unusable), "scan")
        log.info("%s without a %s %s left out", scans, needed, "is" if len(unusable) == 1 else "are")
    return unusable


def refuse_one_class(index: Index, unusable: Collection[str], chosen: Collection[str] | None) -> None:
    """A task with classes has nothing to learn from one class alone.

    Args:
        index: the dataset.
        unusable: case ids that do not take part.
        chosen: the classes that take part; None for all.

    Raises:
        UserError: fewer than two classes take part.
    """
    found = {case.label for case in index.cases if case.case_id not in unusable} - {""}
    found = found if chosen is None else found & set(chosen)
    if len(found) < 2:
        raise UserError(
            f"{index.root}: expected scans of two classes at least, found {', '.join(found) or 'none'} alone; add "
            "scans of another class, widen data.classes, or choose a task without classes, as task=segmentation"
        )


def refuse_no_lesion(index: Index, unusable: Collection[str]) -> None:
    """A task with masks has nothing to learn from scans without a lesion alone.

    Raises:
        UserError: no scan with a lesion takes part.
    """
    lesions = [case for case in index.cases if not case.label or case.label in index.classes.lesions]
    if lesions and all(case.case_id in unusable for case in lesions):
        raise UserError(
            f"{index.root}: no scan with a lesion has a mask, which this task needs; {_where(index)}, or "
            "choose a task without masks, as task=classification"
        )


def _where(index: Index) -> str:
    """What to do where labels or masks are missing."""
    if index.options.has_table(index.root):
        return f"fill in the columns label and mask_file of {index.options.table_name}"
    return "put the mask of IMAGE.png beside it as IMAGE_mask.png"
