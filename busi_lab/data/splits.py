"""Split protocols: from a dataset and its groups to a manifest."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from busi_lab.data.groups import join_patients
from busi_lab.data.index import Case, Index
from busi_lab.data.manifest import Manifest, strata
from busi_lab.errors import UserError, one_line
from busi_lab.plurals import counted

PROTOCOLS = ("published", "holdout", "grouped_holdout", "grouped_kfold", "curated", "all")
PUBLISHED_FRACTION = 0.2


def make_manifest(
    index: Index,
    protocol: str = "holdout",
    seed: int = 0,
    test_fraction: float = PUBLISHED_FRACTION,
    val_fraction: float = 0.1,
    fold: int = 0,
    folds: int = 5,
    groups: Mapping[str, int] | None = None,
    exclude: Collection[str] = (),
    unusable: Collection[str] = (),
) -> Manifest:
    """Split a dataset.

    - ``published``: the first floor(0.2 n) images of each class in lexicographic file order are the test set, as
      Keras' ``validation_split=0.2`` takes them; inferred from the confusion matrices of Dajam & Qahmash,
      IJACSA 16(5), 2025, which hold 87/42/26 images.
    - ``holdout``: floor(``test_fraction`` n) random images of each class.
    - ``grouped_holdout``: as many, but near-copies and the images of a patient stay together.
    - ``grouped_kfold``: ``fold`` of ``folds`` parts of equal class shares, groups together; the parts follow from
      ``seed`` and partition the images.
    - ``curated``: the largest image of each group of near-copies alone, no group whose images differ in class; then
      as ``grouped_holdout``.
    - ``all``: everything is tested, whatever its class, and nothing is learnt.

    All others carve ``val_fraction`` of what remains, class by class, as validation set; the grouped ones by groups.
    Images without a label count as a class of their own, which no split needs.

    Args:
        index: the dataset.
        protocol: one of ``PROTOCOLS``.
        seed: of the random parts.
        test_fraction: share of each class, but for ``grouped_kfold``.
        val_fraction: share of each class in what is not tested.
        fold: the part that is tested, from 0, for ``grouped_kfold``.
        folds: number of parts.
        groups: case id -> number of its group of near-copies; a case that is missing has none. The images of a
            patient, who stands in the index, are joined to them.
        exclude: case ids that are not to be used.
        unusable: case ids that cannot be used, so that their classes are not missed.

    Raises:
        UserError: unknown protocol, a setting that it has not, unknown excluded cases, or a class would be missing
            from a split.
    """
    _check_settings(index, protocol, test_fraction, fold, folds, exclude)
    kept = [case for case in index.cases if case.case_id not in exclude and case.case_id not in unusable]
    together: Mapping[str, int] = {}
    if protocol == "curated":
        kept = _curated(kept, groups or {})
    if protocol in ("grouped_holdout", "grouped_kfold", "curated"):
        together = join_patients(index.cases, groups or {})
    random = np.random.default_rng([seed, 20])
    labels = {case.case_id: case.label for case in kept}
    needed = {case.label for case in index.cases if case.case_id not in unusable} - {""}
    units = _units(kept, together)
    test: list[Unit]
    if protocol == "all":
        test = units
    elif protocol == "published":
        test = [(case_id,) for case_id in _first(kept)]
    elif protocol == "grouped_kfold":
        parts = _partition(units, labels, folds, random)
        for number, part in enumerate(parts):
            _check_classes(index, protocol, f"the test of fold {number}", labels, _case_ids(part), needed)
        test = parts[fold]
        random = np.random.default_rng([seed, 20, fold])
    else:
        test = _draw(units, labels, lambda count: int(test_fraction * count + 1e-9), random)
    rest = sorted(set(units) - set(test))
    val = _draw(rest, labels, lambda count: max(1, round(val_fraction * count)), random)
    train = sorted(set(rest) - set(val))
    lists = {split: _case_ids(part) for split, part in (("test", test), ("val", val), ("train", train))}
    if protocol != "all":
        for split, ids in lists.items():
            _check_classes(index, protocol, split, labels, ids, needed)
    left = tuple(sorted({case.case_id for case in index.cases} - set(labels)))
    which, of = (fold, folds) if protocol == "grouped_kfold" else (None, None)
    return Manifest(protocol, seed, which, index.digest, **lists, excluded=left, folds=of)


def _check_settings(
    index: Index, protocol: str, test_fraction: float, fold: int, folds: int, exclude: Collection[str]
) -> None:
    """Refuse settings that :func:`make_manifest` cannot follow, before anything is drawn."""
    if protocol not in PROTOCOLS:
        raise UserError(f"split.protocol={protocol}: expected {', '.join(PROTOCOLS)}")
    if protocol == "published" and test_fraction != PUBLISHED_FRACTION:
        raise UserError(
            f"split.test_fraction={test_fraction}: split=published is fixed at {PUBLISHED_FRACTION}; use split=holdout"
        )
    if protocol != "grouped_kfold" and fold != 0:
        raise UserError(f"split.fold={fold}: split={protocol} has no folds; use split=grouped_kfold")
    if not 0 <= fold < folds:
        raise UserError(f"split.fold={fold}: expected 0 to {folds - 1}, as split.folds={folds}")
    if unknown := sorted(set(exclude) - {case.case_id for case in index.cases}):
        raise UserError(
            f"split.exclude names {counted(len(unknown), 'image')} that {index.root} does not have, the first "
            f"'{unknown[0]}'; write names as in: benign (1)"
        )


Unit = tuple[str, ...]  # case ids that stay together


def _case_ids(units: Iterable[Unit]) -> tuple[str, ...]:
    """The cases of some units, sorted."""
    return tuple(sorted(case_id for unit in units for case_id in unit))


def _units(cases: Sequence[Case], groups: Mapping[str, int]) -> list[Unit]:
    """The groups, and each other case alone."""
    members: dict[Any, list[str]] = defaultdict(list)
    for case in cases:
        members[groups.get(case.case_id, case.case_id)].append(case.case_id)
    return [tuple(ids) for ids in members.values()]


def _curated(cases: Sequence[Case], groups: Mapping[str, int]) -> list[Case]:
    """The largest image of each group (the first by name of equals), without groups of several classes."""
    by_id = {case.case_id: case for case in cases}
    chosen = set()
    for unit in _units(cases, groups):
        if len({by_id[case_id].label for case_id in unit} - {""}) <= 1:
            chosen.add(min(unit, key=lambda case_id: (-by_id[case_id].height * by_id[case_id].width, case_id)))
    return [case for case in cases if case.case_id in chosen]


def _first(cases: Sequence[Case]) -> list[str]:
    """The published test set: the first images of each class."""
    chosen: list[str] = []
    for label in strata(case.label for case in cases):
        ids = [case.case_id for case in cases if case.label == label]
        chosen += ids[: int(PUBLISHED_FRACTION * len(ids))]
    return chosen


def _draw(
    units: Sequence[Unit], labels: Mapping[str, str], quota: Callable[[int], int], random: np.random.Generator
) -> list[Unit]:
    """Random units, class by class while they fit, with at most ``quota(images of the class)`` of each class.

    What a class falls short of its quota is less than the smallest unit of it that was not drawn.
    """
    room = {label: quota(count) for label, count in Counter(labels[i] for unit in units for i in unit).items()}
    drawn = []
    for label in strata(labels.values()):
        of_class = [unit for unit in units if labels[unit[0]] == label]
        for number in random.permutation(len(of_class)):
            counts = Counter(labels[case_id] for case_id in of_class[number])
            if all(count <= room[name] for name, count in counts.items()):
                room = {name: left - counts[name] for name, left in room.items()}
                drawn.append(of_class[number])
    return drawn


def _partition(
    units: Sequence[Unit], labels: Mapping[str, str], folds: int, random: np.random.Generator
) -> list[list[Unit]]:
    """Parts of equal class shares: large units first, each to the part that has least of its classes.

    Two parts differ in a class by no more than its largest unit, but for what units of several classes add.
    """
    if folds > len(units):
        raise UserError(
            f"split.folds={folds}: there are {counted(len(units), 'group')} of images; expected at most as many folds"
        )
    totals = Counter(labels[case_id] for unit in units for case_id in unit)
    shuffled = [units[number] for number in random.permutation(len(units))]
    several = {unit: len({labels[case_id] for case_id in unit}) > 1 for unit in shuffled}
    shuffled.sort(key=lambda unit: (not several[unit], -len(unit)))
    parts: list[list[Unit]] = [[] for _ in range(folds)]
    held: list[Counter[str]] = [Counter() for _ in range(folds)]
    for unit in shuffled:
        counts = Counter(labels[case_id] for case_id in unit)
        order = random.permutation(folds)  # among equals, any
        chosen = min(order, key=lambda part: sum(held[part][label] / totals[label] for label in counts))
        parts[chosen].append(unit)
        held[chosen].update(counts)
    return parts


def _check_classes(
    index: Index,
    protocol: str,
    split: str,
    labels: Mapping[str, str],
    ids: Collection[str],
    needed: Collection[str],
) -> None:
    """Every class that is needed must be in every split."""
    for label in index.classes.names:
        if label in needed and not any(labels[case_id] == label for case_id in ids):
            count = sum(found == label for found in labels.values())
            raise UserError(
                f"split={protocol} of {index.root} leaves no {label} image for {split}: the class has "
                f"{counted(count, 'image')} to use, at least 5 groups of near-copies or patients are needed; add "
                "images or change the fractions or folds"
            )


def read_exclusions(path: Path) -> list[str]:
    """Read case ids, one a line, or the first column of a CSV file; a heading ``image`` and empty lines are skipped.

    Raises:
        UserError: the file cannot be read or names no image.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            ids = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"split.exclude={path}: cannot be read ({one_line(error)})") from None
    ids = ids[1:] if ids[:1] == ["image"] else ids
    if not ids:
        raise UserError(f"split.exclude={path}: expected case ids, one a line, as benign (1); found none")
    return ids
