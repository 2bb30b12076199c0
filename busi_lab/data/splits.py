"""Split protocols -> a manifest of case ids that is written, read back and verified."""

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from busi_lab.data.groups import join_patients
from busi_lab.data.index import Case, Index
from busi_lab.errors import UserError, one_line
from busi_lab.files import write_json

SPLITS = ("train", "val", "test")
PROTOCOLS = ("published", "holdout", "grouped_holdout", "grouped_kfold", "curated", "all")
PUBLISHED_FRACTION = 0.2
MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """Which case is used for what.

    Attributes:
        protocol: one of ``PROTOCOLS``, or the protocol of the file it was read from.
        seed: seed of the random parts.
        fold: number of the fold, None where the protocol has no folds.
        data_digest: digest of the index that it was made from.
        train: case ids to fit on, sorted, as are the next two.
        val: case ids that choose the checkpoint.
        test: case ids that are touched once.
        excluded: case ids that are not used.
        folds: number of folds, None where the protocol has none or the file does not say it.
    """

    protocol: str
    seed: int
    fold: int | None
    data_digest: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    folds: int | None = None

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits over the lists of what is used."""
        return _digest(*(f"{split}\t{case}" for split in SPLITS for case in getattr(self, split)))

    @cached_property
    def test_digest(self) -> str:
        """Sixteen hex digits over the test list: runs that share it may stand in one table."""
        return _digest(*self.test)

    def subset(
        self, cases: Mapping[str, str], limit: int | None = None, classes: Sequence[str] | None = None
    ) -> "Manifest":
        """The cases of some classes, and at most ``limit`` of each in each split, the first by id.

        Args:
            cases: case id -> label.
            limit: cases of a class in a split; None for all.
            classes: to keep; None for all, and for the cases without a label.
        """
        kept_classes = _strata(cases.values()) if classes is None else classes

        def first(ids: Sequence[str]) -> tuple[str, ...]:
            kept = [case for label in kept_classes for case in [i for i in ids if cases[i] == label][:limit]]
            return tuple(sorted(kept))

        return replace(self, train=first(self.train), val=first(self.val), test=first(self.test))

    def without(self, cases: Collection[str]) -> "Manifest":
        """The same, but for some cases that are not used."""
        train, val, test = (tuple(i for i in ids if i not in cases) for ids in (self.train, self.val, self.test))
        removed = {i for i in (*self.train, *self.val, *self.test) if i in cases}
        return replace(self, train=train, val=val, test=test, excluded=tuple(sorted({*self.excluded, *removed})))

    def leaked(self, groups: Mapping[str, int]) -> tuple[str, ...]:
        """The test images with a near-copy, or the same patient, in training or validation.

        Args:
            groups: case id -> number of its group; a case that is missing has none.
        """
        learnt = {groups[case_id] for case_id in (*self.train, *self.val) if case_id in groups}
        return tuple(case_id for case_id in self.test if groups.get(case_id) in learnt)


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


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
            f"split.exclude names {len(unknown)} images that {index.root} does not have, the first '{unknown[0]}'; "
            "write names as in: benign (1)"
        )
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
            tested = [case_id for unit in part for case_id in unit]
            _check_classes(index, protocol, f"the test of fold {number}", labels, tested, needed)
        test = parts[fold]
        random = np.random.default_rng([seed, 20, fold])
    else:
        test = _draw(units, labels, lambda count: int(test_fraction * count + 1e-9), random)
    rest = sorted(set(units) - set(test))
    val = _draw(rest, labels, lambda count: max(1, round(val_fraction * count)), random)
    train = sorted(set(rest) - set(val))
    lists = {
        split: tuple(sorted(case_id for unit in part for case_id in unit))
        for split, part in (("test", test), ("val", val), ("train", train))
    }
    if protocol != "all":
        for split, ids in lists.items():
            _check_classes(index, protocol, split, labels, ids, needed)
    left = tuple(sorted({case.case_id for case in index.cases} - set(labels)))
    which, of = (fold, folds) if protocol == "grouped_kfold" else (None, None)
    return Manifest(protocol, seed, which, index.digest, **lists, excluded=left, folds=of)


Unit = tuple[str, ...]  # case ids that stay together


def _strata(labels: Iterable[str]) -> list[str]:
    """The classes in order; images without a label are spread over the splits as those of a class are, the last."""
    return [*sorted({*labels} - {""}), ""]


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
    for label in _strata(case.label for case in cases):
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
    for label in _strata(labels.values()):
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
        raise UserError(f"split.folds={folds}: there are {len(units)} groups of images; expected at most as many folds")
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
                f"split={protocol} of {index.root} leaves no {label} image for {split}: the class has {count} images "
                "to use, at least 5 groups of near-copies or patients are needed; add images or change the fractions "
                "or folds"
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


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as JSON, atomically."""
    write_json(
        path,
        {
            "schema": MANIFEST_SCHEMA,
            "protocol": manifest.protocol,
            "seed": manifest.seed,
            "fold": manifest.fold,
            "folds": manifest.folds,
            "digest": manifest.digest,
            "data_digest": manifest.data_digest,
            **{split: getattr(manifest, split) for split in (*SPLITS, "excluded")},
        },
    )


def read_manifest(path: Path, index: Index, unusable: Collection[str] = ()) -> Manifest:
    """Read a manifest back and verify it against the dataset.

    Args:
        path: the file.
        index: the dataset.
        unusable: case ids that cannot be used; they are moved to what is excluded.

    Raises:
        UserError: the file is no manifest, was edited (its digest differs), was made from other data, names an
            unknown case, leaves one out, or uses one twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"split.manifest={path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"split.manifest={path}: expected JSON, found {error}") from None
    manifest = _parse(path, content)
    verify_manifest(manifest, index.cases, str(path))
    if content.get("digest", manifest.digest) != manifest.digest:
        raise UserError(
            f"split.manifest={path}: the lists have digest {manifest.digest}, the file says {content['digest']}; "
            "take the unedited file, or delete its digest to use the lists as they are"
        )
    if manifest.data_digest != index.digest:
        raise UserError(
            f"split.manifest={path}: made from data with digest {manifest.data_digest}, {index.root} has "
            f"{index.digest}; use the same version of the dataset"
        )
    if unusable:
        manifest = manifest.without(unusable)
        verify_manifest(manifest, index.cases, f"{path}, without the scans that this task cannot use")
    return manifest


def _parse(path: Path, content: Any) -> Manifest:
    keys = ("schema", "protocol", "seed", "fold", "data_digest", *SPLITS)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"split.manifest={path}: not a split manifest, {', '.join(missing)} missing")
    if content["schema"] != MANIFEST_SCHEMA:
        raise UserError(f"split.manifest={path}: schema {content['schema']}, this version reads {MANIFEST_SCHEMA}")
    lists: dict[str, tuple[str, ...]] = {}
    for split in (*SPLITS, "excluded"):
        ids = content.get(split, [])
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            raise UserError(f"split.manifest={path}: {split} must be a list of case ids")
        lists[split] = tuple(ids)
    fixed: dict[str, Any] = {key: content[key] for key in ("protocol", "seed", "fold", "data_digest")}
    return Manifest(**{**fixed, **lists}, folds=content.get("folds"))  # which older files do not have


def verify_manifest(manifest: Manifest, cases: Sequence[Case], source: str) -> None:
    """Check that every case of the dataset is in one list and that every split has every class that is used.

    With the protocol ``all`` everything is tested, and no split needs a class.

    Raises:
        UserError: with the first cases that are wrong.
    """
    known = {case.case_id: case.label for case in cases}
    used: dict[str, str] = {}
    for split in (*SPLITS, "excluded"):
        for case_id in getattr(manifest, split):
            if case_id not in known:
                raise UserError(f"{source}: {split} names the unknown case '{case_id}'; use this dataset's manifest")
            if case_id in used:
                raise UserError(f"{source}: case '{case_id}' stands in {used[case_id]} and in {split}; splits overlap")
            used[case_id] = split
    missing = sorted(set(known) - set(used))
    if missing:
        raise UserError(f"{source}: {len(missing)} cases of the dataset are in no split, the first '{missing[0]}'")
    needed = {known[case_id] for case_id, split in used.items() if split != "excluded"} - {""}
    for split in SPLITS if manifest.protocol != "all" else ():
        present = {known[case_id] for case_id in getattr(manifest, split)}
        if absent := sorted(needed - present):
            raise UserError(f"{source}: {split} has no {absent[0]} image; every split needs every class")
