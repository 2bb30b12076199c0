"""A split manifest: which case is used for what, written, read back and verified."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from busi_lab.data.index import Case, Index
from busi_lab.errors import UserError
from busi_lab.files import write_json
from busi_lab.plurals import counted

SPLITS = ("train", "val", "test")
MANIFEST_SCHEMA = 1
JOINED = "ensemble"
"""Protocol of what several splits leave together, see :func:`join_manifests`."""


def strata(labels: Iterable[str]) -> list[str]:
    """The classes in order; images without a label are spread over the splits as those of a class are, the last."""
    return [*sorted({*labels} - {""}), ""]


@dataclass(frozen=True)
class Manifest:
    """Which case is used for what.

    Attributes:
        protocol: one of ``PROTOCOLS``, or the protocol of the file it was read from.
        seed: seed of the random parts; None for splits of several seeds together.
        fold: number of the fold, None where the protocol has no folds.
        data_digest: digest of the index that it was made from.
        train: case ids to fit on, sorted, as are the next two.
        val: case ids that choose the checkpoint.
        test: case ids that are touched once.
        excluded: case ids that are not used.
        folds: number of folds, None where the protocol has none or the file does not say it.
        version: of the way in which the split was made; splits of another one are not comparable.
        imbalance: a sentence for each class that could not be shared out evenly.
        invalid: what is wrong with the protocol, where it was made wrong to see what that does; else empty.
        unlabelled: case ids, of ``train`` or ``excluded``, that are learnt from without their annotation; of a split
            that no run has used yet, those that cannot be used otherwise and may be learnt from so.
    """

    protocol: str
    seed: int | None
    fold: int | None
    data_digest: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    folds: int | None = None
    version: int = 1
    imbalance: tuple[str, ...] = ()
    invalid: str = ""
    unlabelled: tuple[str, ...] = ()

    @property
    def learnt(self) -> frozenset[str]:
        """All that is learnt from: by annotation, by the choice of the checkpoint, and without annotation."""
        return frozenset((*self.train, *self.val, *self.unlabelled))

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits over the lists of what is used, and the version from the second on."""
        version = [f"version\t{self.version}"] if self.version > 1 else []
        return _digest(*version, *(f"{split}\t{case}" for split in SPLITS for case in getattr(self, split)))

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
        kept_classes = strata(cases.values()) if classes is None else classes

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
        """The test images with a near-copy, or the same patient, among those that are learnt from.

        Args:
            groups: case id -> number of its group; a case that is missing has none.
        """
        ids = self.learnt
        learnt = {groups[case_id] for case_id in ids if case_id in groups}
        return tuple(case_id for case_id in self.test if groups.get(case_id) in learnt or case_id in ids)


def join_manifests(manifests: Sequence[Manifest], case_ids: Iterable[str]) -> Manifest:
    """What networks that were trained under several splits have learnt from together.

    What any of them has in training or validation, or learns from without annotation, is learnt; test images are those
    that all of them test, validation images those that all of them validate on. Equal splits stay what they are.

    Args:
        manifests: of one dataset.
        case_ids: of all its cases.
    """
    first = manifests[0]
    if any(each.digest != first.digest for each in manifests):
        learnt = {i for each in manifests for i in (*each.train, *each.val)}
        val = set.intersection(*(set(each.val) for each in manifests))
        tested = set.intersection(*(set(each.test) for each in manifests)) - learnt
        invalid = dict.fromkeys(each.invalid for each in manifests if each.invalid)
        first = replace(
            first,
            protocol=JOINED,
            seed=first.seed if len({each.seed for each in manifests}) == 1 else None,
            fold=None,
            folds=None,
            train=tuple(sorted(learnt - val)),
            val=tuple(sorted(val)),
            test=tuple(sorted(tested)),
            imbalance=(),
            invalid="; ".join(invalid),
        )
    used = {*first.train, *first.val, *first.test}
    unlabelled = {i for each in manifests for i in each.unlabelled}
    return replace(first, excluded=tuple(sorted(set(case_ids) - used)), unlabelled=tuple(sorted(unlabelled)))


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


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
            "version": manifest.version,
            "imbalance": manifest.imbalance,
            "invalid": manifest.invalid,
            "digest": manifest.digest,
            "data_digest": manifest.data_digest,
            **{split: getattr(manifest, split) for split in (*SPLITS, "excluded", "unlabelled")},
        },
    )


def read_manifest(path: Path, index: Index, unusable: Collection[str] = ()) -> Manifest:
    """Read a manifest back and verify it against the dataset.

    Args:
        path: the file.
        index: the dataset.
        unusable: case ids that cannot be used; they are moved to what is excluded. Those of training, and those that
            were learnt from without annotation, may be so again.

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
        free = {*manifest.train, *manifest.unlabelled}.intersection(unusable)
        manifest = replace(manifest.without(unusable), unlabelled=tuple(sorted(free)))
        verify_manifest(manifest, index.cases, f"{path}, without the scans that this task cannot use")
    return manifest


def read_version(path: Path) -> int | None:
    """The version of a manifest, unverified; None where there is no file, or none that says one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("version", 1)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None


def _parse(path: Path, content: Any) -> Manifest:
    keys = ("schema", "protocol", "seed", "fold", "data_digest", *SPLITS)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"split.manifest={path}: not a split manifest, {', '.join(missing)} missing")
    if content["schema"] != MANIFEST_SCHEMA:
        raise UserError(f"split.manifest={path}: schema {content['schema']}, this version reads {MANIFEST_SCHEMA}")
    version = content.get("version", 1)
    if not isinstance(version, int) or version < 1:
        raise UserError(f"split.manifest={path}: version {version!r}; expected a whole number from 1")
    lists: dict[str, tuple[str, ...]] = {}
    for split in (*SPLITS, "excluded", "unlabelled", "imbalance"):
        ids = content.get(split, [])
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            items = "sentences" if split == "imbalance" else "case ids"
            raise UserError(f"split.manifest={path}: {split} must be a list of {items}")
        lists[split] = tuple(ids)
    fixed: dict[str, Any] = {key: content[key] for key in ("protocol", "seed", "fold", "data_digest")}
    invalid = str(content.get("invalid") or "")  # older files have neither this nor folds nor unlabelled
    return Manifest(**{**fixed, **lists}, folds=content.get("folds"), version=version, invalid=invalid)


def verify_manifest(manifest: Manifest, cases: Sequence[Case], source: str) -> None:
    """Check that every case of the dataset is in one list and that every split has every class that is used.

    With the protocol ``all`` everything is tested, and with that of an ensemble nothing may be left to test: no split
    needs a class. With ``by_source`` the test set is a dataset as it is.

    Raises:
        UserError: with the first cases that are wrong.
    """
    known = {case.case_id: case.label for case in cases}
    used: dict[str, str] = {}
    for split in (*SPLITS, "excluded"):
        for case_id in getattr(manifest, split):
            if case_id not in known:
                raise UserError(f"{source}: {split} names the unknown case '{case_id}'; use this dataset's manifest")
            if case_id in used and not (manifest.invalid and (used[case_id], split) == ("val", "test")):
                raise UserError(f"{source}: case '{case_id}' stands in {used[case_id]} and in {split}; splits overlap")
            used[case_id] = split
    for case_id in manifest.unlabelled:
        if (found := used.get(case_id)) not in ("train", "excluded"):
            raise UserError(
                f"{source}: unlabelled names '{case_id}', which stands in {found or 'no list'}; expected cases "
                "of train or excluded"
            )
    missing = sorted(set(known) - set(used))
    if missing:
        raise UserError(
            f"{source}: {counted(len(missing), 'case')} of the dataset in no split, the first '{missing[0]}'"
        )
    tested = () if manifest.protocol == "by_source" else ("test",)  # a dataset need not have every class
    needed = {known[case_id] for split in ("train", "val", *tested) for case_id in getattr(manifest, split)} - {""}
    for split in ("train", "val", *tested) if manifest.protocol not in ("all", JOINED) else ():
        present = {known[case_id] for case_id in getattr(manifest, split)}
        if absent := sorted(needed - present):
            raise UserError(f"{source}: {split} has no {absent[0]} image; every split needs every class")
