"""Which training scans stay annotated, and what is drawn beside them."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from busi_lab.data.annotation import choose_annotated
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.sampler import EpochSampler
from busi_lab.errors import UserError

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


def module(root: Path, **settings: object) -> BusiDataModule:
    data = BusiDataModule(str(root), 32, 4, split={"protocol": "grouped_holdout"}, cache_dir=None, **settings)  # type: ignore[arg-type]
    data.setup()
    return data


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


def test_rows_without_a_label_are_used_but_not_those_of_test_patients(phantom_root: Path, tmp_path: Path) -> None:
    files = [path for path in sorted(phantom_root.rglob("*.png")) if "_mask" not in path.name]
    lines = ["file,label,patient"]
    for number, path in enumerate(files):
        lines.append(f"{path.relative_to(phantom_root)},{path.parent.name if number % 3 else ''},p{number // 2}")
    for label in ("benign", "malignant", "normal"):
        (tmp_path / label).symlink_to(phantom_root / label)
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = module(tmp_path, masks=False, unlabelled="rest")
    unlabelled = {case.case_id for case in data.index.cases if not case.label}
    judged = {data.group(case_id) for case_id in (*data.manifest.val, *data.manifest.test)}
    assert set(data.unlabelled) == {case_id for case_id in unlabelled if data.group(case_id) not in judged}
    assert 0 < len(data.unlabelled) < len(unlabelled)


def test_two_views_of_a_scan_differ(phantom_root: Path) -> None:
    data = module(phantom_root, two_views=True, labels=False, masks=False, augment={"rotation": 20.0})
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert batch["view"].shape == batch["image"].shape
        assert not np.array_equal(batch["view"], batch["image"])
    first, second = (next(iter(data.val_dataloader()))["view"] for _ in range(2))
    assert np.array_equal(first, second)
