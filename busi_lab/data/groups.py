"""Groups of images that must not be parted: near-copies, and images of one patient; and the file that holds them."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from busi_lab.data.index import Case, Index
from busi_lab.errors import UserError, one_line
from busi_lab.files import write_rows

GROUPS = "groups.csv"
NO_SEARCH = "none"
"""``split.groups=none``: near-copies are not looked for."""

COLUMNS = ("group", "image", "similarity", "conflict", "data_digest")
"""Columns of :data:`GROUPS`."""
AGREEMENT = 0.7  # Dice of two aligned masks, below which they disagree


@dataclass(frozen=True)
class Pair:
    """Two images, in the index's order, that were verified.

    Attributes:
        similarity: correlation of the aligned overlap, up to 1.
        dice: Dice of the aligned masks in the overlap; 1 where both are empty, or one is not known.
        mirrored: whether one shows the other's mirror image.
        negative: whether one shows the other's gray levels inverted.
    """

    first: str
    second: str
    similarity: float
    dice: float
    mirrored: bool
    negative: bool = False


@dataclass(frozen=True)
class Group:
    """Images that verified pairs connect, in the index's order; two at least."""

    number: int
    cases: tuple[Case, ...]
    pairs: tuple[Pair, ...]

    @cached_property
    def similarity(self) -> dict[str, float]:
        """Case id -> its best similarity to another image of the group."""
        best: dict[str, float] = defaultdict(float)
        for pair in self.pairs:
            for case_id in (pair.first, pair.second):
                best[case_id] = max(best[case_id], pair.similarity)
        return dict(best)

    @cached_property
    def conflict(self) -> str:
        """``label`` where classes differ, ``mask`` where a pair's Dice is below 0.7, ``label+mask``, or nothing."""
        found = {
            "label": len({case.label for case in self.cases if case.label}) > 1,
            "mask": any(pair.dice < AGREEMENT for pair in self.pairs),
        }
        return "+".join(name for name, there in found.items() if there)


def components(count: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Connected components of two nodes or more, each sorted, in the order of their first nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.array(list(edges), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    members: dict[int, list[int]] = defaultdict(list)
    for node, component in enumerate(connected_components(graph, directed=False)[1].tolist() if count else ()):
        members[component].append(node)
    return [nodes for nodes in members.values() if len(nodes) > 1]


def join_patients(cases: Sequence[Case], groups: Mapping[str, int]) -> dict[str, int]:
    """Put near-copies, the images of each patient, and whatever these have in common into one group.

    Args:
        cases: of a dataset, some with a patient.
        groups: case id -> number of its group of near-copies; images in no group are left out.

    Returns:
        Case id -> number of its group, from 1 in the order of ``cases``; ``groups`` itself where no patient is known.
    """
    if not any(case.patient for case in cases):
        return dict(groups)
    positions: dict[str | int, list[int]] = defaultdict(list)  # of the images of a patient, or of a group
    for position, case in enumerate(cases):
        if case.patient:
            positions[case.patient].append(position)
        if case.case_id in groups:
            positions[groups[case.case_id]].append(position)
    edges = [(members[0], other) for members in positions.values() for other in members]
    return {
        cases[position].case_id: number
        for number, members in enumerate(components(len(cases), edges), start=1)
        for position in members
    }


def group_numbers(groups: Iterable[Group]) -> dict[str, int]:
    """Case id -> number of its group; images in no group are left out."""
    return {case.case_id: group.number for group in groups for case in group.cases}


def write_groups(path: Path, groups: Iterable[Group], index: Index) -> None:
    """Write one CSV row per image of a group, with the columns :data:`COLUMNS`."""
    rows = (
        (group.number, case.case_id, group.similarity[case.case_id], group.conflict, index.digest)
        for group in groups
        for case in group.cases
    )
    write_rows(path, [dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS)


def read_groups(path: Path, index: Index) -> dict[str, int]:
    """Read what :func:`write_groups` wrote; only the columns group, image and data_digest are needed.

    Returns:
        Case id -> number of its group; images that the file does not name are left out.

    Raises:
        UserError: the file is unreadable, lacks a column, was made from other data, or names an image that is
            unknown or named before.
    """
    needed = ("group", "image", "data_digest")
    again = f"make it anew with: busi-data duplicates '{index.root}' --out DIR"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns, rows = table.fieldnames or [], list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the groups {path} cannot be read ({one_line(error)}); {again}") from None
    if missing := [name for name in needed if name not in columns]:
        raise UserError(f"{path}: expected the columns {', '.join(needed)}, {', '.join(missing)} missing; {again}")
    known = {case.case_id for case in index.cases}
    numbers: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        number, image, digest = (row[name] or "" for name in needed)
        if digest != index.digest:
            raise UserError(
                f"{path}, line {line}: expected data_digest {index.digest}, that of {index.root}, found {digest!r}: "
                f"the groups are of another version of the dataset; {again}"
            )
        if image not in known:
            raise UserError(f"{path}, line {line}: expected an image of {index.root}, found {image!r}; {again}")
        if not number.isdecimal():
            raise UserError(f"{path}, line {line}: expected a group's number, found {number!r}; {again}")
        if image in numbers:
            raise UserError(
                f"{path}, line {line}: {image} stands in group {numbers[image]} and again in group {number}; expected "
                f"each image once; {again}"
            )
        numbers[image] = int(number)
    return numbers
