"""Split protocols -> a manifest of case ids that is written, read back and verified."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from busi_lab.data.index import Case, Index
from busi_lab.errors import UserError
from busi_lab.run_directory import CLASSES, write_json

SPLITS = ("train", "val", "test")
PUBLISHED_FRACTION = 0.2
MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """Which case is used for what.

    Attributes:
        protocol: ``published`` or ``holdout``, or the protocol of the file it was read from.
        seed: seed of the random parts.
        fold: number of the fold, None where the protocol has no folds.
        data_digest: digest of the index that it was made from.
        train: case ids to fit on, sorted, as are the next two.
        val: case ids that choose the checkpoint.
        test: case ids that are touched once.
    """

    protocol: str
    seed: int
    fold: int | None
    data_digest: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits over the three lists."""
        return _digest(*(f"{split}\t{case}" for split in SPLITS for case in getattr(self, split)))

    @cached_property
    def test_digest(self) -> str:
        """Sixteen hex digits over the test list: runs that share it may stand in one table."""
        return _digest(*self.test)

    def subset(
        self, cases: Mapping[str, str], limit: int | None = None, classes: Sequence[str] = CLASSES
    ) -> "Manifest":
        """The cases of some classes, and at most ``limit`` of each in each split, the first by id.

        Args:
            cases: case id -> label.
            limit: cases of a class in a split; None for all.
            classes: to keep.
        """

        def first(ids: Sequence[str]) -> tuple[str, ...]:
            kept = [case for label in classes for case in [i for i in ids if cases[i] == label][:limit]]
            return tuple(sorted(kept))

        return replace(self, train=first(self.train), val=first(self.val), test=first(self.test))


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def make_manifest(
    index: Index,
    protocol: str = "published",
    seed: int = 0,
    test_fraction: float = PUBLISHED_FRACTION,
    val_fraction: float = 0.1,
) -> Manifest:
    """Split a dataset.

    ``published``: the first floor(0.2 n) images of each class in lexicographic file order are the test set, as
    Keras' ``validation_split=0.2`` takes them; inferred from the confusion matrices of Dajam & Qahmash,
    IJACSA 16(5), 2025, which hold 87/42/26 images. ``holdout``: floor(``test_fraction`` n) random images of
    each class. Both carve ``val_fraction`` of what remains, class by class, as validation set.

    Raises:
        UserError: unknown protocol, another ``test_fraction`` than 0.2 with ``published``, or a class would be
            missing from a split.
    """
    if protocol not in ("published", "holdout"):
        raise UserError(f"split.protocol={protocol}: expected published or holdout")
    if protocol == "published" and test_fraction != PUBLISHED_FRACTION:
        raise UserError(
            f"split.test_fraction={test_fraction}: split=published is fixed at {PUBLISHED_FRACTION}; use split=holdout"
        )
    random = np.random.default_rng([seed, 20])
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for label in CLASSES:
        ids = [case.case_id for case in index.cases if case.label == label]
        if protocol == "published":
            tested = int(PUBLISHED_FRACTION * len(ids))
        else:
            tested = int(test_fraction * len(ids) + 1e-9)
            ids = [ids[i] for i in random.permutation(len(ids))]
        test, rest = ids[:tested], ids[tested:]
        validated = max(1, round(val_fraction * len(rest)))
        rest = [rest[i] for i in random.permutation(len(rest))]
        parts = {"test": test, "val": rest[:validated], "train": rest[validated:]}
        for split, part in parts.items():
            if not part:
                raise UserError(
                    f"split={protocol} of {index.root} leaves no {label} image for {split}: the class has "
                    f"{len(ids)} images, at least 5 are needed; add images or change the fractions"
                )
            splits[split] += part
    lists = {split: tuple(sorted(ids)) for split, ids in splits.items()}
    return Manifest(protocol, seed, None, index.digest, **lists)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as JSON, atomically."""
    write_json(
        path,
        {
            "schema": MANIFEST_SCHEMA,
            "protocol": manifest.protocol,
            "seed": manifest.seed,
            "fold": manifest.fold,
            "digest": manifest.digest,
            "data_digest": manifest.data_digest,
            **{split: getattr(manifest, split) for split in SPLITS},
        },
    )


def read_manifest(path: Path, index: Index) -> Manifest:
    """Read a manifest back and verify it against the dataset.

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
    return manifest


def _parse(path: Path, content: Any) -> Manifest:
    keys = ("schema", "protocol", "seed", "fold", "data_digest", *SPLITS)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"split.manifest={path}: not a split manifest, {', '.join(missing)} missing")
    if content["schema"] != MANIFEST_SCHEMA:
        raise UserError(f"split.manifest={path}: schema {content['schema']}, this version reads {MANIFEST_SCHEMA}")
    lists: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        ids = content[split]
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            raise UserError(f"split.manifest={path}: {split} must be a list of case ids")
        lists[split] = tuple(ids)
    fixed: dict[str, Any] = {key: content[key] for key in ("protocol", "seed", "fold", "data_digest")}
    return Manifest(**fixed, train=lists["train"], val=lists["val"], test=lists["test"])


def verify_manifest(manifest: Manifest, cases: Sequence[Case], source: str) -> None:
    """Check that every case of the dataset is used exactly once and that every split has every class.

    Raises:
        UserError: with the first cases that are wrong.
    """
    known = {case.case_id: case.label for case in cases}
    used: dict[str, str] = {}
    for split in SPLITS:
        for case_id in getattr(manifest, split):
            if case_id not in known:
                raise UserError(f"{source}: {split} names the unknown case '{case_id}'; use this dataset's manifest")
            if case_id in used:
                raise UserError(f"{source}: case '{case_id}' stands in {used[case_id]} and in {split}; splits overlap")
            used[case_id] = split
    missing = sorted(set(known) - set(used))
    if missing:
        raise UserError(f"{source}: {len(missing)} cases of the dataset are in no split, the first '{missing[0]}'")
    for split in SPLITS:
        present = {known[case_id] for case_id in getattr(manifest, split)}
        if absent := [label for label in CLASSES if label not in present]:
            raise UserError(f"{source}: {split} has no {absent[0]} image; every split needs every class")
