"""Which training scans stay annotated, and what is drawn beside them."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from busi_lab.data.annotation import choose_annotated
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.manifest import write_manifest
from busi_lab.data.sampler import EpochSampler
from busi_lab.errors import UserError
from busi_lab.run.leaks import used_manifest

LABELS = {f"{label} {n}": label for label, count in (("benign", 40), ("malignant", 20)) for n in range(count)}
GROUPS = {f"benign {n}": n // 4 for n in range(40)}  # ten patients with four scans each


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    shares = (0.05, 0.1, 0.25, 0.5, 1.0)
    chosen = [set(choose_annotated(list(LABELS), LABELS, GROUPS, share, seed=3)) for share in shares]
    assert all(small < large for small, large in pairwise(chosen))
    assert chosen[-1] == set(LABELS)
    for share, ids in zip(shares, chosen, strict=True):
        counts = Counter(LABELS[case_id] for case_id in ids)
        assert counts["malignant"] == max(1, round(20 * share))
        assert counts["benign"] == 4 * max(1, -(-round(40 * share) // 4)), "whole patients"
        for group in set(GROUPS.values()):
            assert len({case_id for case_id, number in GROUPS.items() if number == group} & ids) in (0, 4)


def test_another_seed_draws_other_scans() -> None:
    first, second = (choose_annotated(list(LABELS), LABELS, GROUPS, 0.25, seed) for seed in (0, 1))
    assert first == choose_annotated(list(reversed(LABELS)), LABELS, GROUPS, 0.25, 0)
    assert first != second


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"data\.annotated=.*expected a share"):
        choose_annotated(["a"], {"a": "benign"}, {}, share, 0)


@pytest.mark.parametrize("balanced", [True, False])
def test_an_epoch_may_have_more_draws_than_images(balanced: bool) -> None:
    draws = list(EpochSampler([0, 0, 0, 1], balanced, 0, lambda: 0, draws=10))
    assert len(draws) == 10
    assert len({seed for _, seed in draws}) == 10
    counts = Counter(position for position, _ in draws)
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) <= (5 if balanced else 3)


def module(root: Path, split: dict[str, object] | None = None, **settings: object) -> BusiDataModule:
    split = split or {"protocol": "grouped_holdout"}
    data = BusiDataModule(str(root), 32, 4, split=split, cache_dir=None, **settings)  # type: ignore[arg-type]
    data.setup()
    return data


@pytest.fixture
def patients(phantom_root: Path, tmp_path: Path) -> Path:
    """The phantoms, two scans for each patient; every third scan has no label."""
    root = tmp_path / "patients"
    root.mkdir()
    files = [path for path in sorted(phantom_root.rglob("*.png")) if "_mask" not in path.name]
    lines = ["file,label,patient"]
    for number, path in enumerate(files):
        lines.append(f"{path.relative_to(phantom_root)},{path.parent.name if number % 3 else ''},p{number // 2}")
    for label in ("benign", "malignant", "normal"):
        (root / label).symlink_to(phantom_root / label)
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_scans_without_annotation_are_drawn_beside_the_others(phantom_root: Path) -> None:
    whole = module(phantom_root, unlabelled="rest")
    assert whole.unlabelled == ()
    assert module(phantom_root, unlabelled="all", annotated=0.3).unlabelled == whole.manifest.train
    data = module(phantom_root, annotated=0.3, unlabelled="rest", epoch_images=20)
    assert set(data.manifest.train) | set(data.unlabelled) == set(whole.manifest.train)
    assert not set(data.manifest.train) & set(data.unlabelled)
    assert data.manifest.test == whole.manifest.test
    batches = list(data.train_dataloader())
    assert sum(len(batch["image"]) for batch in batches) == 20
    assert all(batch["unlabelled"].shape == batch["image"].shape for batch in batches)
    again = list(data.train_dataloader())
    assert all(np.array_equal(a["unlabelled"], b["unlabelled"]) for a, b in zip(batches, again, strict=True))
    supervised = module(phantom_root, annotated=0.3)
    assert supervised.manifest.train == data.manifest.train
    assert "unlabelled" not in next(iter(supervised.train_dataloader()))


def test_rows_without_a_label_are_used_but_not_those_of_test_patients(patients: Path) -> None:
    data = module(patients, masks=False, unlabelled="rest")
    unlabelled = {case.case_id for case in data.index.cases if not case.label}
    judged = {data.group(case_id) for case_id in (*data.manifest.val, *data.manifest.test)}
    assert set(data.unlabelled) == {case_id for case_id in unlabelled if data.group(case_id) not in judged}
    assert 0 < len(data.unlabelled) < len(unlabelled)


def test_what_is_learnt_without_annotation_counts_as_learnt_and_stands_in_the_split(
    patients: Path, tmp_path: Path
) -> None:
    holdout: dict[str, object] = {"protocol": "holdout", "test_fraction": 0.4, "seed": 2}
    supervised, data = (
        module(patients, holdout, masks=False, annotated=0.1, unlabelled=wanted) for wanted in ("none", "all")
    )
    assert (supervised.full_manifest.unlabelled, data.manifest.digest) == ((), supervised.manifest.digest)
    patient = {case.case_id: case.patient for case in data.index.cases}
    learnt = {patient[i] for i in (*data.manifest.train, *data.manifest.val, *data.unlabelled)}
    assert data.leaked() == sum(patient[i] in learnt for i in data.manifest.test) > (supervised.leaked() or 0)
    write_manifest(tmp_path / "split.json", data.full_manifest)
    assert set(used_manifest(tmp_path, data.index).learnt) >= {*data.unlabelled, *data.manifest.val}
    again = module(patients, {"manifest": tmp_path / "split.json"}, masks=False, annotated=0.1, unlabelled="all")
    assert again.full_manifest == data.full_manifest


def test_what_a_split_excludes_is_not_learnt_without_its_label_either(patients: Path, tmp_path: Path) -> None:
    before = module(patients, masks=False, unlabelled="rest")
    dropped, *kept = before.unlabelled
    (tmp_path / "exclude.txt").write_text(dropped)
    split: dict[str, object] = {"protocol": "grouped_holdout", "exclude": tmp_path / "exclude.txt"}
    data = module(patients, split, masks=False, unlabelled="rest")
    assert data.unlabelled == tuple(kept)
    write_manifest(tmp_path / "split.json", data.full_manifest)
    again = module(patients, {"manifest": tmp_path / "split.json"}, masks=False, unlabelled="rest")
    assert again.unlabelled == tuple(kept)


def test_a_manifest_that_learns_from_a_test_scan_without_annotation_is_refused(
    phantom_root: Path, tmp_path: Path
) -> None:
    manifest = module(phantom_root).full_manifest
    write_manifest(tmp_path / "split.json", replace(manifest, unlabelled=manifest.test[:1]))
    with pytest.raises(UserError, match=r"unlabelled names '.*', which stands in test; expected cases of train or"):
        module(phantom_root, {"manifest": tmp_path / "split.json"})


def test_two_views_of_a_scan_differ(phantom_root: Path) -> None:
    data = module(phantom_root, two_views=True, labels=False, masks=False, augment={"rotation": 20.0})
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert batch["view"].shape == batch["image"].shape
        assert not np.array_equal(batch["view"], batch["image"])
    first, second = (next(iter(data.val_dataloader()))["view"] for _ in range(2))
    assert np.array_equal(first, second)
