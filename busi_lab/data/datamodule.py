"""The LightningDataModule: a dataset, split by a manifest, as batches."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from busi_lab.classes import Classes
from busi_lab.data.annotation import choose_annotated, describe_annotated
from busi_lab.data.cache import PixelCache, open_cache, resolve_cache_dir
from busi_lab.data.duplicates import cached_groups
from busi_lab.data.groups import NO_SEARCH, join_patients, read_groups
from busi_lab.data.index import Case, Index
from busi_lab.data.manifest import Manifest, read_manifest
from busi_lab.data.options import AS_FOUND, DatasetOptions
from busi_lab.data.requirements import (
    check_classes,
    choose_half,
    find_unusable,
    refuse_no_lesion,
    refuse_one_class,
)
from busi_lab.data.sampler import EpochSampler
from busi_lab.data.scan import Gray
from busi_lab.data.scan_dataset import ScanDataset, WithUnlabelled, collate
from busi_lab.data.splits import make_manifest, read_exclusions
from busi_lab.data.transforms import Augmentation
from busi_lab.data.workers import begin_worker
from busi_lab.machine import cpu_count

log = logging.getLogger(__name__)


class BusiDataModule(LightningDataModule):
    """Batches of a dataset, split by a manifest.

    Batch keys: ``image`` (uint8 ``[B, 1, S, S]``), ``label`` (int64 ``[B]``), ``case_id`` (list of str) and, with
    ``masks``, ``mask`` (uint8 ``[B, 1, S, S]``), ``size`` and ``spacing`` (``[B, 2]``), in the test on demand
    ``original_mask`` (list of bool ``[1, H, W]``), in training on demand ``unlabelled``, and everywhere on demand
    ``view`` (uint8 ``[B, 1, S, S]``).
    Scaling and channels are the model's affair.

    Args:
        root: dataset folder, or its parent.
        image_size: side of the square that scans are resized to, pixels.
        batch_size: scans in a training batch.
        eval_batch_size: scans in a validation or test batch.
        split: arguments of :func:`make_manifest`, with ``exclude`` and ``groups`` as files, or
            ``{"manifest": FILE}``. Without a file of groups they are looked for, once for a dataset; with
            ``groups="none"`` they are not, and only patients form groups.
        augment: settings of :class:`Augmentation` for training.
        balanced_sampling: draw the classes equally often in training.
        subset: at most so many scans of each class in each split.
        annotated: share of the training scans whose annotation counts, see :func:`choose_annotated`.
        epoch_images: draws of an epoch; None for as many as there are annotated training scans.
        classes: those that take part; None for all, and for scans without a class. The split is made before, so
            that whatever classes two runs use, neither tests on what the other has learnt from.
        labels: leave scans out whose class is not known.
        masks: deliver lesion masks, and leave scans out whose mask is not known.
        roles: the classes by which labels are numbered; None for those of the dataset.
        either: with ``labels`` and ``masks``, where no scan with a lesion has both, deliver the one that more have.
        original_masks: deliver test masks at the scans' resolution, too.
        options: how the folder is to be read.
        num_workers: loader processes; None chooses by the machine.
        unlabelled: deliver with each training scan another one without label and mask: of those whose annotation does
            not count or that have none (``rest``, where there are any), of these and the annotated ones (``all``), or
            ``none``.
        two_views: deliver each scan in two views.
        cache_dir: folder of the pixel cache, see :func:`resolve_cache_dir`; None keeps pixels in memory alone.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        root: str | None,
        image_size: int = 224,
        batch_size: int = 4,
        eval_batch_size: int = 32,
        split: Mapping[str, Any] | None = None,
        augment: Mapping[str, Any] | None = None,
        balanced_sampling: bool = True,
        subset: int | None = None,
        annotated: float = 1.0,
        epoch_images: int | None = None,
        classes: Sequence[str] | None = None,
        roles: Classes | None = None,
        labels: bool = True,
        masks: bool = True,
        either: bool = False,
        original_masks: bool = False,
        options: DatasetOptions = AS_FOUND,
        unlabelled: Literal["none", "rest", "all"] = "none",
        two_views: bool = False,
        num_workers: int | None = None,
        cache_dir: str | None = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._root = root
        self._image_size = image_size
        self.batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._split = dict(split or {})
        self._augment = dict(augment or {})
        self._balanced = balanced_sampling
        self._subset = subset
        self._annotated, self._epoch_images = annotated, epoch_images
        self._wants_unlabelled, self._two_views = unlabelled, two_views
        self._classes = None if classes is None else tuple(classes)
        self._roles = roles
        self._labels = labels
        self._masks = masks
        self._either = either
        self._original_masks = original_masks
        self._options = options
        self.workers = default_workers() if num_workers is None else num_workers
        self.cache_dir = resolve_cache_dir(cache_dir)
        self._seed = seed
        self._resumed = (-1, 0)
        self.cache: PixelCache | None = None
        self.origin: str | None = None

    def prepare_data(self) -> None:
        """Decode the dataset into the cache and look for near-copies, once on a machine."""
        if self.cache_dir is not None and self.cache is None:
            cache = open_cache(self._root, self._image_size, self.cache_dir, self._options)
            if not self._split.get("groups"):
                cached_groups(cache.index, self.cache_dir)

    def setup(self, stage: str | None = None) -> None:
        """Open the cache and split it.

        Raises:
            UserError: the dataset or the manifest is not sound.
        """
        if self.cache is not None:
            return
        cache = open_cache(self._root, self._image_size, self.cache_dir, self._options)
        split = dict(self._split)
        file, groups, exclude = (split.pop(key, None) for key in ("manifest", "groups", "exclude"))
        self.roles = roles = cache.index.classes if self._roles is None else self._roles
        check_classes(cache.index, roles, self._classes)
        if self._either and self._labels and self._masks:
            self._labels, self._masks = choose_half(cache.index)
        unusable = find_unusable(cache.index, self._labels, self._masks)
        manifest = read_manifest(Path(file), cache.index, unusable) if file else None
        if (manifest.protocol if manifest else split.get("protocol")) != "all":
            if self._labels:
                refuse_one_class(cache.index, unusable, self._classes)
            if self._masks:
                refuse_no_lesion(cache.index, unusable)
        copies = self._near_copies(cache.index, groups)
        if manifest is None:
            excluded = read_exclusions(Path(exclude)) if exclude else ()
            manifest = make_manifest(cache.index, groups=copies, exclude=excluded, unusable=unusable, **split)
        self.full_manifest = manifest
        self.groups = join_patients(cache.index.cases, copies)
        self._further = {case.case_id: case.further for case in cache.index.cases}
        labels = {case.case_id: case.label for case in cache.index.cases}
        self.manifest: Manifest = self.full_manifest.subset(labels, self._subset, self._classes)
        self._choose_annotated(cache.index, labels, unusable)
        augmentation = Augmentation(self._augment)
        two = self._two_views
        self.train_set = ScanDataset(cache, self.manifest.train, augmentation, self._masks, False, roles, two)
        self.val_set = ScanDataset(cache, self.manifest.val, augmentation, self._masks, False, roles, two)
        self.unlabelled_set = ScanDataset(cache, self.unlabelled, augmentation, masks=False, classes=roles)
        originals = self._masks and self._original_masks
        viewed = augmentation if two else None
        self.test_set = ScanDataset(cache, self.manifest.test, viewed, self._masks, originals, roles, two)
        self.cache = cache

    def _choose_annotated(self, index: Index, labels: Mapping[str, str], unusable: Collection[str]) -> None:
        """Leave the annotated scans in the manifest; :attr:`unlabelled` has what else may be learnt from.

        That is the other training scans, and those that lack what the task needs, which the split does not exclude,
        but for near-copies and patients of validation and test.
        """
        training = self.manifest.train
        chosen = choose_annotated(training, labels, self.groups, self._annotated, int(self._split.get("seed", 0)))
        self.manifest = replace(self.manifest, train=chosen)
        unlabelled: set[str] = set()
        if self._wants_unlabelled != "none":
            judged = {self.group(case_id) for case_id in (*self.full_manifest.val, *self.full_manifest.test)}
            lacking = set(unusable).intersection(self.full_manifest.unlabelled)
            free = {case_id for case_id in lacking if self.group(case_id) not in judged}
            unlabelled = {*training, *free} - ({*chosen} if self._wants_unlabelled == "rest" else set())
        self.record_unlabelled(unlabelled)
        if self._annotated < 1 or self.unlabelled:
            log.info(describe_annotated(len(chosen), len(training), len({*self.unlabelled} - {*chosen})))

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Case ids that are learnt from without their annotation; after :meth:`setup`."""
        return self.manifest.unlabelled

    def record_unlabelled(self, case_ids: Collection[str]) -> None:
        """Let the split say from which scans something is learnt without their annotation: they count as learnt."""
        ids = tuple(sorted(case_ids))
        self.manifest = replace(self.manifest, unlabelled=ids)
        self.full_manifest = replace(self.full_manifest, unlabelled=ids)

    def _near_copies(self, index: Index, groups: str | None) -> dict[str, int]:
        """Groups of near-copies: found, read, or none."""
        self.near_copies = "searched" if not groups else groups if groups == NO_SEARCH else "file"
        if self.near_copies == "searched":
            return cached_groups(index, self.cache_dir)
        return {} if groups == NO_SEARCH else read_groups(Path(str(groups)), index)

    @property
    def delivers(self) -> tuple[bool, bool]:
        """Whether every scan that takes part has a label, and whether it has a mask; after :meth:`setup`."""
        return self._labels, self._masks

    @property
    def index(self) -> Index:
        """The dataset's index; after :meth:`setup`."""
        assert self.cache is not None
        return self.cache.index

    def replace_scans(self, scans: Mapping[str, Gray], origin: str) -> None:
        """Let networks see other scans, uint8 ``[S, S]`` by case id; masks stay, and so do groups and split.

        Args:
            scans: of cases that take part.
            origin: a digest of what has made them, to be kept in checkpoints.
        """
        assert self.cache is not None
        self.cache, self.origin = self.cache.with_images(scans), origin
        for part in (self.train_set, self.val_set, self.test_set, self.unlabelled_set):
            part.cache = self.cache

    def leaked(self) -> int | None:
        """Test images with a near-copy, or the same patient, in what is learnt from; None without a search."""
        return None if self.near_copies == NO_SEARCH else len(self.manifest.leaked(self.groups))

    def group(self, case_id: str) -> str:
        """A name that a case shares with its near-copies and its patient's images alone: a number, or its own id."""
        return str(self.groups.get(case_id, case_id))

    def further(self, case_id: str) -> tuple[tuple[str, str], ...]:
        """Name and value of each further column that ``labels.csv`` has for a case."""
        return self._further[case_id]

    def tested_cases(self) -> list[Case]:
        """The cases of the test set, in the order of the index."""
        tested = set(self.manifest.test)
        return [case for case in self.index.cases if case.case_id in tested]

    def pictures(self) -> dict[str, Gray]:
        """Case id -> scan, uint8 ``[S, S]``, of the test set."""
        assert self.cache is not None
        numbers = {case.case_id: number for number, case in enumerate(self.cache.index.cases)}
        return {case_id: self.cache.image(numbers[case_id]) for case_id in self.manifest.test}

    def true_masks(self) -> dict[str, Gray]:
        """Case id -> lesion mask, uint8 ``[S, S]`` of 0 and 1, of the test set."""
        assert self.cache is not None
        numbers = {case.case_id: number for number, case in enumerate(self.cache.index.cases)}
        return {case_id: self.cache.mask(numbers[case_id]) for case_id in self.manifest.test}

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Augmented scans in the order of :class:`EpochSampler`."""
        rank, ranks = self._ranks()
        labels, draws = self.train_set.labels, self._epoch_images
        sampler = EpochSampler(labels, self._balanced, self._seed, self._epoch, rank, ranks, draws)
        sampler.skip(*self._resumed)
        lonely = len(sampler) > 1 and len(sampler) % self.batch_size == 1  # batch norm needs two
        scans = WithUnlabelled(self.train_set, self.unlabelled_set) if self.unlabelled else self.train_set
        return self._loader(scans, self.batch_size, sampler, drop_last=lonely)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Validation scans in the manifest's order."""
        return self.eval_loader(self.val_set)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Test scans in the manifest's order."""
        return self.eval_loader(self.test_set)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def state_dict(self) -> dict[str, Any]:
        """Where in which epoch a checkpoint is saved, and on which data."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        draws = done * self.batch_size if done < self.trainer.num_training_batches else 0
        return {"epoch": self._epoch(), "draws": draws, "split": self.manifest.digest, "origin": self.origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue there."""
        self._resumed = (state_dict["epoch"], state_dict["draws"])

    def eval_loader(self, dataset: Dataset[dict[str, Any]]) -> DataLoader[dict[str, Any]]:
        """Scans of ``dataset`` in its order, each once over all ranks."""
        rank, ranks = self._ranks()
        return self._loader(dataset, self._eval_batch_size, range(rank, len(dataset), ranks))  # type: ignore[arg-type]

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, dataset: Dataset[dict[str, Any]], batch_size: int, sampler: Any, drop_last: bool = False
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=begin_worker if self.workers else None,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )


def default_workers() -> int:
    """Loader processes for this machine: none where the CPU computes, else up to eight.

    Augmenting a cached scan takes well below a millisecond, so that a CPU that also trains gains nothing.
    """
    if not torch.cuda.is_available():
        return 0
    return min(8, max(1, cpu_count() - 1))
