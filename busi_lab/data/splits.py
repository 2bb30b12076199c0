"""Split protocols: from a dataset and its groups to a manifest."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from busi_lab.data.by_source import LeftOut, leave_out
from busi_lab.data.groups import join_patients
from busi_lab.data.index import Case, Index
from busi_lab.data.manifest import Manifest, strata
from busi_lab.data.partition import Unit, partition
from busi_lab.errors import UserError, one_line
from busi_lab.plurals import counted

PROTOCOLS = ("published", "holdout", "grouped_holdout", "grouped_kfold", "curated", "by_source", "all")
GROUPED = ("grouped_holdout", "grouped_kfold", "curated", "by_source")
FOLDED = ("grouped_kfold", "by_source")
PUBLISHED_FRACTION = 0.2
UNEVEN = 0.1
"""How far the share of a class may be from what was wanted before a grouped split warns."""

CHOSEN_ON_TEST = "best epoch chosen on the test images"

_VERSION = 2  # of grouped splits: raise when the same data would be split otherwise, or other near-copies be found


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
    choose_on_test: bool = False,
) -> Manifest:
    """Split a dataset.

    - ``published``: the first floor(0.2 n) images of each class in lexicographic file order are the test set, as
      Keras' ``validation_split=0.2`` takes them; inferred from the confusion matrices of Dajam & Qahmash,
      IJACSA 16(5), 2025, which hold 87/42/26 images.
    - ``holdout``: floor(``test_fraction`` n) random images of each class.
    - ``grouped_holdout``: about as many, but near-copies and the images of a patient stay together.
    - ``grouped_kfold``: ``fold`` of ``folds`` parts of about equal class shares, groups together; the parts follow
      from ``seed`` and partition the images.
    - ``curated``: the largest image of each patient, or of each group of near-copies, alone, and no near-copies of
      different classes; then as ``grouped_holdout``.
    - ``by_source``: of several datasets (:mod:`busi_lab.data.mix`), number ``fold`` by name is tested; scans of the
      others that share a group with it are left out. Classes that only the tested one has are not learnt.
    - ``all``: everything is tested, whatever its class, and nothing is learnt.

    All others carve ``val_fraction`` of what remains, class by class, as validation set; the grouped ones by groups.
    Images without a label count as a class of their own, which no split needs.

    Args:
        index: the dataset.
        protocol: one of ``PROTOCOLS``.
        seed: of the random parts.
        test_fraction: share of each class, but for ``grouped_kfold``.
        val_fraction: share of each class in what is not tested.
        fold: the part that is tested, from 0, for ``grouped_kfold``, or the dataset, for ``by_source``.
        folds: number of parts.
        groups: case id -> number of its group of near-copies; a case that is missing has none. The images of a
            patient, who stands in the index, are joined to them.
        exclude: case ids that are not to be used.
        unusable: case ids that cannot be used, so that their classes are not missed; they may be learnt from without
            annotation, but for the excluded ones and those of a dataset that is tested.
        choose_on_test: an invalid protocol: the test images are the validation images, which choose the best epoch.

    Raises:
        UserError: unknown protocol, a setting that it has not, unknown excluded cases, or a class would be missing
            from a split.
    """
    _check_settings(index, protocol, test_fraction, fold, folds, exclude)
    kept = [case for case in index.cases if case.case_id not in exclude and case.case_id not in unusable]
    grouped = protocol in GROUPED
    together = join_patients(index.cases, groups or {}) if grouped else {}
    if protocol == "curated":
        kept = _curated(kept, groups or {}, together)
    place = f"split={protocol} of {index.root}"
    free = set(unusable).difference(exclude)
    needed = {case.label for case in index.cases if case.case_id not in unusable} - {""}
    left_out = None
    if protocol == "by_source":
        left_out = leave_out(place, index.cases, {case.case_id for case in kept}, together, fold)
        folds, kept = left_out.datasets, [c for c in kept if c.case_id in left_out.tested | left_out.learnt]
        needed = {case.label for case in kept if case.case_id in left_out.learnt} - {""}
        free -= left_out.dataset
    labels = {case.case_id: case.label for case in kept}
    units = _units(kept, together)
    if grouped:
        _refuse_few_groups(place, units, labels, needed, folds if protocol == "grouped_kfold" else None)
    wanted = _Wanted(seed, test_fraction, val_fraction, fold, folds)
    test, val = _test_and_val(protocol, kept, units, labels, needed, wanted, left_out)
    rest = sorted(set(units) - set(test))
    train = sorted(set(rest) - set(val))
    lists = {split: _case_ids(part) for split, part in (("test", test), ("val", val), ("train", train))}
    if protocol != "all":
        for split, ids in lists.items() if left_out is None else [item for item in lists.items() if item[0] != "test"]:
            _check_classes(place, index.classes.names, split, units, labels, ids, needed)
    if choose_on_test:
        lists |= {"val": lists["test"], "train": _case_ids(rest)}
    tested = 1 / folds if protocol == "grouped_kfold" else test_fraction
    ideal = {"test": tested, "val": (1 - tested) * val_fraction}
    left = tuple(sorted({case.case_id for case in index.cases} - set(labels)))
    which, of = (fold, folds) if protocol in FOLDED else (None, None)
    even = grouped and left_out is None and not choose_on_test
    return Manifest(
        protocol,
        seed,
        which,
        index.digest,
        lists["train"],
        lists["val"],
        lists["test"],
        excluded=left,
        folds=of,
        version=version_of(protocol),
        invalid=CHOSEN_ON_TEST if choose_on_test else "",
        imbalance=_imbalance(lists, labels, units, ideal) if even else (),
        unlabelled=tuple(sorted(free)),
    )


@dataclass(frozen=True)
class _Wanted:
    """The settings of :func:`make_manifest` that say how much is drawn, and how."""

    seed: int
    test_fraction: float
    val_fraction: float
    fold: int
    folds: int

    def tested(self, count: float) -> int:
        """Test images of a class of ``count``; 0.29 * 100 is 28.999999999999996."""
        return int(self.test_fraction * count + 1e-9)

    def validated(self, count: float) -> int:
        """Validation images of a class of which ``count`` are not tested."""
        return max(1, round(self.val_fraction * count))


def _test_and_val(
    protocol: str,
    kept: Sequence[Case],
    units: Sequence[Unit],
    labels: Mapping[str, str],
    needed: Collection[str],
    wanted: _Wanted,
    left_out: LeftOut | None,
) -> tuple[list[Unit], list[Unit]]:
    """What is tested and what validates; training has the rest."""
    random = np.random.default_rng([wanted.seed, 20])
    counts = _counts(units, labels, float)
    if protocol in ("grouped_holdout", "curated"):
        # All three at once, because a test set that is drawn first may leave too few groups of a class.
        tested: dict[str, float] = {label: wanted.tested(count) for label, count in counts.items()}
        validated: dict[str, float] = {label: wanted.validated(counts[label] - tested[label]) for label in counts}
        learnt = {label: count - tested[label] - validated[label] for label, count in counts.items()}
        test, val, _ = partition(units, labels, [tested, validated, learnt], needed, random)
        return test, val
    if protocol in FOLDED:
        if left_out is not None:
            test = [unit for unit in units if left_out.tested.intersection(unit)]
        else:
            shares = [{label: count / wanted.folds for label, count in counts.items()}] * wanted.folds
            test = partition(units, labels, shares, needed, random)[wanted.fold]
        rest = sorted(set(units) - set(test))
        random = np.random.default_rng([wanted.seed, 20, wanted.fold])
        validated = _counts(rest, labels, wanted.validated)
        learnt = {label: count - validated[label] for label, count in _counts(rest, labels, float).items()}
        return test, partition(rest, labels, [validated, learnt], needed, random)[0]
    if protocol == "all":
        return list(units), []
    if protocol == "published":
        test = [(case_id,) for case_id in _first(kept)]
    else:
        test = _draw(units, labels, _counts(units, labels, wanted.tested), random)
    rest = sorted(set(units) - set(test))
    return test, _draw(rest, labels, _counts(rest, labels, wanted.validated), random)


def version_of(protocol: str) -> int:
    """The version of the way in which a protocol splits."""
    return _VERSION if protocol in GROUPED else 1


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
    if protocol not in FOLDED and fold != 0:
        raise UserError(f"split.fold={fold}: split={protocol} has no folds; use split=grouped_kfold")
    if protocol != "by_source" and not 0 <= fold < folds:
        raise UserError(f"split.fold={fold}: expected 0 to {folds - 1}, as split.folds={folds}")
    if unknown := sorted(set(exclude) - {case.case_id for case in index.cases}):
        raise UserError(
            f"split.exclude names {counted(len(unknown), 'image')} that {index.root} does not have, the first "
            f"'{unknown[0]}'; write names as in: benign (1)"
        )


def _case_ids(units: Iterable[Unit]) -> tuple[str, ...]:
    """The cases of some units, sorted."""
    return tuple(sorted(case_id for unit in units for case_id in unit))


def _units(cases: Sequence[Case], groups: Mapping[str, int]) -> list[Unit]:
    """The groups, and each other case alone."""
    members: dict[Any, list[str]] = defaultdict(list)
    for case in cases:
        members[groups.get(case.case_id, case.case_id)].append(case.case_id)
    return [tuple(ids) for ids in members.values()]


def _curated(cases: Sequence[Case], copies: Mapping[str, int], together: Mapping[str, int]) -> list[Case]:
    """The largest image of each patient or group; of equals any, but always the same one.

    Near-copies of several classes are left out before.
    """
    by_id = {case.case_id: case for case in cases}
    doubtful = {
        case_id
        for unit in _units(cases, copies)
        for case_id in unit
        if len({by_id[member].label for member in unit} - {""}) > 1
    }
    sound = [case for case in cases if case.case_id not in doubtful]
    chosen = {
        min(
            unit, key=lambda case_id: (-by_id[case_id].height * by_id[case_id].width, sha256(case_id.encode()).digest())
        )
        for unit in _units(sound, together)
    }  # equals by name would favour the class that comes first in the alphabet
    return [case for case in sound if case.case_id in chosen]


def _first(cases: Sequence[Case]) -> list[str]:
    """The published test set: the first images of each class."""
    chosen: list[str] = []
    for label in strata(case.label for case in cases):
        ids = [case.case_id for case in cases if case.label == label]
        chosen += ids[: int(PUBLISHED_FRACTION * len(ids))]
    return chosen


def _counts(units: Iterable[Unit], labels: Mapping[str, str], of: Callable[[int], float]) -> dict[str, float]:
    """Class -> ``of`` the number of its images."""
    found = Counter(labels[case_id] for unit in units for case_id in unit)
    return {label: of(count) for label, count in found.items()}


def _draw(
    units: Sequence[Unit], labels: Mapping[str, str], wanted: Mapping[str, float], random: np.random.Generator
) -> list[Unit]:
    """So many random images of each class, which are in no groups."""
    drawn: list[Unit] = []
    for label in strata(labels.values()):
        of_class = [unit for unit in units if labels[unit[0]] == label]
        order = random.permutation(len(of_class))
        drawn += [of_class[number] for number in order[: int(wanted.get(label, 0))]]
    return drawn


def _refuse_few_groups(
    place: str, units: Sequence[Unit], labels: Mapping[str, str], needed: Collection[str], folds: int | None
) -> None:
    """Every part needs a group of every class: training, validation and test, or every fold and what it leaves.

    Raises:
        UserError: a class has too few.
    """
    least = 3 if folds is None else max(folds, 4 if folds == 2 else 3)
    for label in sorted(needed):
        found = [unit for unit in units if any(labels[case_id] == label for case_id in unit)]
        if len(found) < least:
            images = sum(labels[case_id] == label for unit in found for case_id in unit)
            fewer = f", or fewer folds with split.folds={len(found)}" if folds and 3 <= len(found) < folds else ""
            raise UserError(
                f"{place}: the class {label} has {counted(images, 'image')} in {counted(len(found), 'group')} (near-"
                f"copies, or one patient); expected {least} groups at least: add patients{fewer}"
            )


def _check_classes(
    place: str,
    names: Sequence[str],
    split: str,
    units: Sequence[Unit],
    labels: Mapping[str, str],
    ids: Collection[str],
    needed: Collection[str],
) -> None:
    """Every class that is needed must be in every split."""
    for label in names:
        if label in needed and not any(labels[case_id] == label for case_id in ids):
            images = sum(found == label for found in labels.values())
            groups = sum(any(labels[case_id] == label for case_id in unit) for unit in units)
            grouped = "" if groups == images else f" in {counted(groups, 'group')}"
            raise UserError(
                f"{place} leaves no {label} image for {split}: the class has {counted(images, 'image')}{grouped} to "
                "use; add images, or change the fractions or folds"
            )


def _imbalance(
    lists: Mapping[str, Collection[str]], labels: Mapping[str, str], units: Sequence[Unit], ideal: Mapping[str, float]
) -> tuple[str, ...]:
    """A sentence for each part that holds a share of a class far from what was wanted."""
    totals = Counter(labels.values())
    told = []
    for split, share in ideal.items():
        held = Counter(labels[case_id] for case_id in lists[split])
        for label in sorted(set(totals) - {""}):
            found = held[label] / totals[label]
            if abs(found - share) > UNEVEN:
                groups = sum(any(labels[case_id] == label for case_id in unit) for unit in units)
                told.append(
                    f"{split} has {found:.0%} of the {label} images where {share:.0%} was wanted: their {groups} "
                    "groups (near-copies, or one patient) cannot be shared out evenly"
                )
    return tuple(told)


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
