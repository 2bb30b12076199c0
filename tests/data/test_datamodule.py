"""What a datamodule draws, in which order, and what it hands on."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from PIL import Image

from busi_lab.classes import BUSI
from busi_lab.data import datamodule
from busi_lab.data import index as index_module
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.index import index_dataset
from busi_lab.data.manifest import write_manifest
from busi_lab.data.sampler import EpochSampler
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError
from tests.data.augmentations import PAPER, settings

SIZE = 48

# ----------------------------------------------------------------------------------------- EpochSampler

LABELS = [0] * 315 + [1] * 151 + [2] * 96


def make_sampler(labels: list[int], balanced: bool, seed: int = 0, epoch: int = 0, **ranks: int) -> EpochSampler:
    return EpochSampler(labels, balanced, seed, lambda: epoch, **ranks)


def positions(sampler: EpochSampler) -> list[int]:
    return [position for position, _ in sampler]


@given(counts=st.tuples(*[st.integers(1, 60)] * 3), seed=st.integers(0, 2**31), epoch=st.integers(0, 200))
def test_a_balanced_epoch_draws_classes_equally_and_images_evenly(
    counts: tuple[int, int, int], seed: int, epoch: int
) -> None:
    labels = np.repeat([0, 1, 2], counts)
    sampler = make_sampler(labels.tolist(), True, seed, epoch)
    drawn = np.bincount(positions(sampler), minlength=len(labels))
    assert drawn.sum() == len(sampler) == len(labels)
    shares = [int(drawn[labels == label].sum()) for label in range(3)]
    assert max(shares) - min(shares) <= 1
    assert all(np.ptp(drawn[labels == label]) <= 1 for label in range(3))


def test_busis_balanced_epoch() -> None:
    drawn = Counter(LABELS[position] for position in positions(make_sampler(LABELS, True)))
    assert sorted(drawn.values()) == [187, 187, 188]


def test_an_epoch_as_it_is_draws_every_image_once() -> None:
    order = positions(make_sampler(LABELS, False))
    assert sorted(order) == list(range(len(LABELS))) != order


@pytest.mark.parametrize("balanced", [True, False])
def test_order_and_seeds_are_a_function_of_seed_and_epoch(balanced: bool) -> None:
    def epoch(number: int, seed: int = 0) -> list[tuple[int, int]]:
        return list(make_sampler(LABELS, balanced, seed, number))

    epochs = [epoch(0), epoch(1), epoch(2), epoch(0, seed=1), epoch(1, seed=1)]
    assert len({tuple(draws) for draws in epochs}) == 5
    assert all(not {seed for _, seed in one} & {seed for _, seed in two} for one, two in pairwise(epochs))
    assert epoch(2) == epochs[2]
    now = [0]
    sampler = EpochSampler(LABELS, balanced, 0, lambda: now[0])
    list(sampler), torch.rand(3), np.random.rand(3)  # noqa: NPY002
    now[0] = 2
    assert list(sampler) == list(sampler) == epochs[2]


def test_a_continued_epoch_leaves_out_what_is_behind_it() -> None:
    now = [3]
    whole = list(make_sampler(LABELS, True, epoch=3))
    sampler = EpochSampler(LABELS, True, 0, lambda: now[0])
    sampler.skip(3, 40)
    assert list(sampler) == whole[40:]
    now[0] = 4
    assert list(sampler) == list(make_sampler(LABELS, True, epoch=4))
    for rank in range(2):
        part = make_sampler(LABELS, True, epoch=3, rank=rank, ranks=2)
        part.skip(3, 40)  # of each rank
        assert list(part) == whole[80 + rank :: 2]


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_partition_an_epoch(balanced: bool, ranks: int) -> None:
    whole = list(make_sampler(LABELS, balanced, 7))
    parts = [make_sampler(LABELS, balanced, 7, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {len(list(part)) for part in parts} == {len(part) for part in parts} == {len(LABELS) // ranks}
    woven = [draw for step in zip(*parts, strict=True) for draw in step]
    assert woven == whole[: len(woven)]


def test_a_set_smaller_than_the_number_of_ranks_gives_each_one_draw() -> None:
    assert [len(list(make_sampler([0, 1], True, rank=rank, ranks=4))) for rank in range(4)] == [1, 1, 1, 1]


# ------------------------------------------------------------------------------------------- datamodule


def ready(root: Path, **arguments: Any) -> BusiDataModule:
    """A datamodule to draw from; on the cache that all tests share, unless told otherwise."""
    data = BusiDataModule(str(root), **{"image_size": SIZE, "num_workers": 0, "cache_dir": "auto", **arguments})
    data.prepare_data()
    data.setup()
    return data


def test_batches_have_the_promised_keys_shapes_and_types(phantom_root: Path) -> None:
    data = ready(phantom_root, augment=PAPER, batch_size=5, eval_batch_size=3)
    for loader, size in ((data.train_dataloader(), 5), (data.val_dataloader(), 3), (data.test_dataloader(), 3)):
        batch = next(iter(loader))
        assert set(batch) == {"image", "label", "case_id", "mask", "size", "spacing"}
        for key in ("image", "mask"):
            assert batch[key].shape == (size, 1, SIZE, SIZE) and batch[key].dtype == torch.uint8
        assert batch["label"].shape == (size,) and batch["label"].dtype == torch.int64
        assert batch["mask"].max() == 1
        sizes = {case.case_id: [case.height, case.width] for case in data.index.cases}
        assert batch["size"].tolist() == [sizes[name] for name in batch["case_id"]] and batch["spacing"].isnan().all()
        names = [BUSI.names[label] for label in batch["label"]]
        assert [case.split()[0] for case in batch["case_id"]] == names
        assert [bool(mask.any()) for mask in batch["mask"]] == [name != "normal" for name in names]


def test_masks_can_be_left_out(phantom_root: Path) -> None:
    on, off = (ready(phantom_root, augment=PAPER, masks=masks) for masks in (True, False))
    for one, two in zip(on.train_dataloader(), off.train_dataloader(), strict=True):
        assert set(two) == {"image", "label", "case_id"}
        assert torch.equal(one["image"], two["image"])


def test_evaluation_is_the_manifest_in_order_and_as_stored(phantom_root: Path) -> None:
    data = ready(phantom_root, augment=PAPER, split={"protocol": "published"})
    manifest = make_manifest(index_dataset(phantom_root), "published")
    assert data.manifest == data.full_manifest == manifest
    assert data.cache is not None
    numbers = {case.case_id: number for number, case in enumerate(data.cache.index.cases)}
    for loader, ids in ((data.val_dataloader(), manifest.val), (data.test_dataloader(), manifest.test)):
        (batch,) = loader
        assert tuple(batch["case_id"]) == ids
        for case, image, mask in zip(ids, batch["image"], batch["mask"], strict=True):
            assert np.array_equal(image[0], data.cache.image(numbers[case]))
            assert np.array_equal(mask[0], data.cache.mask(numbers[case]))


def test_nothing_is_decoded_after_setup(phantom_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(phantom_root, augment=PAPER)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(index_module, "read_scan", lambda *_: pytest.fail("decoded"))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert len(list(loader)) == len(loader)
    data.setup("test")  # a second stage opens nothing


def test_preparing_stores_and_setup_reads(phantom_root: Path, tmp_path: Path, reads: list[Path]) -> None:
    data = BusiDataModule(str(phantom_root), image_size=SIZE, cache_dir=str(tmp_path))
    data.prepare_data()
    assert len(reads) == 2 * 60  # for the cache, and for the groups of near-copies
    data.setup()
    ready(phantom_root, cache_dir=str(tmp_path))
    assert len(reads) == 2 * 60


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search for near-copies where no cache keeps what it finds."""
    monkeypatch.setattr(datamodule, "cached_groups", lambda *_: {})


def test_augmenting_leaves_the_cache_as_it_is(phantom_root: Path, no_search: None) -> None:
    for augment, cache_dir in (({}, None), (PAPER, None), ({}, "auto")):
        data = ready(phantom_root, augment=augment, cache_dir=cache_dir)
        assert data.cache is not None
        before = data.cache.images.clone()
        for batch in data.train_dataloader():
            batch["image"].zero_()
        assert torch.equal(data.cache.images, before)


@pytest.mark.parametrize("stored", [True, False])
def test_epochs_are_the_same_for_any_number_of_workers(
    phantom_root: Path, tmp_path: Path, stored: bool, no_search: None
) -> None:
    cache_dir = str(tmp_path) if stored else None

    def epochs(workers: int, seed: int = 0) -> list[dict[str, Any]]:
        data = ready(phantom_root, augment=settings("strong"), num_workers=workers, seed=seed, cache_dir=cache_dir)
        data.trainer = trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0)  # type: ignore[assignment]
        loader, batches = data.train_dataloader(), []
        for trainer.current_epoch in range(2):
            batches += list(loader)
        return batches

    alone, shared = epochs(0), epochs(2)
    assert len(alone) == len(shared) == 12
    for one, two in zip(alone, shared, strict=True):
        assert one["case_id"] == two["case_id"]
        assert torch.equal(one["image"], two["image"]) and torch.equal(one["mask"], two["mask"])
    assert [batch["case_id"] for batch in alone[:6]] != [batch["case_id"] for batch in alone[6:]]
    assert [batch["case_id"] for batch in epochs(0, seed=1)] != [batch["case_id"] for batch in alone]


def test_every_epoch_of_a_training_has_its_own_order(phantom_root: Path, tmp_path: Path) -> None:
    class Recorder(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: dict[int, list[str]] = {}

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.seen.setdefault(self.current_epoch, []).extend(batch["case_id"])
            return self.weight.sum()

        def validation_step(self, *_: Any) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    recorder, data = Recorder(), ready(phantom_root)
    options: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, **options)
    trainer.fit(recorder, datamodule=data)
    for epoch in (0, 1):
        sampler = make_sampler(data.train_set.labels, True, epoch=epoch)
        assert recorder.seen[epoch] == [data.train_set.case_ids[position] for position in positions(sampler)]


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_augmentation_sets_work_at_64_pixels(phantom_root: Path, name: str) -> None:
    data = ready(phantom_root, image_size=64, augment=settings(name))
    for batch in data.train_dataloader():
        assert batch["image"].shape[1:] == (1, 64, 64)
        assert set(batch["mask"].unique().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(4, [4, 4]), (2, [2] * 4), (8, [8]), (5, [5, 4]), (3, [3] * 3), (1, [1] * 9), (32, [9])],
)
def test_a_single_image_left_over_is_dropped(phantom_root: Path, batch_size: int, sizes: list[int]) -> None:
    data = ready(phantom_root, subset=3, batch_size=batch_size, eval_batch_size=2)
    assert [len(batch["label"]) for batch in data.train_dataloader()] == sizes  # of nine
    assert [len(batch["label"]) for batch in data.val_dataloader()] == [2, 1]


def test_a_subset_keeps_the_full_manifest(phantom_root: Path) -> None:
    data = ready(phantom_root, subset=1, split={"protocol": "published"})
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [3, 3, 3]
    assert len(data.full_manifest.train) == 22
    assert data.manifest.test == ("benign (1)", "malignant (1)", "normal (1)")


def test_split_settings_and_manifests_reach_the_split(phantom_root: Path, tmp_path: Path) -> None:
    split = {"protocol": "holdout", "seed": 3, "test_fraction": 0.3, "val_fraction": 0.2, "manifest": None}
    data = ready(phantom_root, split=split)
    expected = make_manifest(index_dataset(phantom_root), "holdout", 3, 0.3, 0.2)
    assert data.manifest == expected
    write_manifest(tmp_path / "split.json", expected)
    assert (
        ready(phantom_root, split={**split, "seed": 9, "manifest": str(tmp_path / "split.json")}).manifest == expected
    )
    with pytest.raises(UserError, match="no such file"):
        ready(phantom_root, split={"manifest": str(tmp_path / "gone.json")})


def test_ranks_share_an_evaluation(phantom_root: Path) -> None:
    data = ready(phantom_root)
    seen: list[str] = []
    for rank in range(2):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)  # type: ignore[assignment]
        (batch,) = data.test_dataloader()
        seen += batch["case_id"]
        assert len(list(data.train_dataloader().sampler)) == 11
    assert sorted(seen) == list(data.manifest.test)


def test_unbalanced_sampling_draws_each_image_once(phantom_root: Path) -> None:
    data = ready(phantom_root, balanced_sampling=False)
    assert sorted(case for batch in data.train_dataloader() for case in batch["case_id"]) == list(data.manifest.train)


def test_a_wrong_root_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root=.*nowhere: expected a dataset folder"):
        ready(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"data.root is not set"):
        BusiDataModule(None).setup()


def test_classes_take_part_within_the_split_of_all(phantom_root: Path) -> None:
    everything, lesions = ready(phantom_root), ready(phantom_root, classes=["benign", "malignant"])
    assert lesions.full_manifest == everything.full_manifest
    for split in ("train", "val", "test"):
        kept = [case for case in getattr(everything.manifest, split) if not case.startswith("normal")]
        assert list(getattr(lesions.manifest, split)) == kept
    drawn = [label for batch in lesions.train_dataloader() for label in batch["label"].tolist()]
    assert set(drawn) == {0, 1}


def test_original_masks_are_those_on_disk(phantom_root: Path) -> None:
    data = ready(phantom_root, original_masks=True)
    assert "original_mask" not in next(iter(data.val_dataloader()))
    (batch,) = data.test_dataloader()
    cases = {case.case_id: case for case in data.cache.index.cases}  # type: ignore[union-attr]
    for case_id, mask in zip(batch["case_id"], batch["original_mask"], strict=True):
        case = cases[case_id]
        assert mask.shape == (1, case.height, case.width)
        assert int(mask.sum()) == case.lesion_pixels


def test_near_copies_are_not_looked_for(phantom_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("there was a search")

    monkeypatch.setattr("busi_lab.data.datamodule.cached_groups", never)
    data = ready(phantom_root, split={"protocol": "grouped_holdout", "groups": "none"})
    assert (data.near_copies, data.leaked(), data.groups) == ("none", None, {})
