"""The training loop of ``busi-train`` beside a bare loop of torch on the same network, images and augmentation."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.data import default_collate

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.keras_process import Keras
from busi_lab.benchmarks.phantoms import phantoms
from busi_lab.benchmarks.settings import Settings
from busi_lab.config import RunConfig, config_dir, parse_config
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.files import read_rows
from busi_lab.models import Outputs
from busi_lab.run.build import build_callbacks, build_data, build_task, build_trainer, find_classes, trainer_settings
from busi_lab.run.callbacks import EpochRecord, EpochSeed
from busi_lab.run.environment import quieten
from busi_lab.run_directory import METRICS
from busi_lab.tasks import BaseTask

_EXPERIMENTS = {"classification": "paper/mobilenet", "segmentation": "paper/unet", "joint": "joint/mobilenet"}
_IMAGES = 260  # of which a split leaves a round of 128


def measure(settings: Settings) -> Iterator[Figure]:
    """Images a second of both loops in turns, and their ratio, for each task, precision and batch size."""
    quieten()
    logging.disable(logging.INFO)
    torch.set_num_threads(settings.threads)
    root = phantoms(_IMAGES)
    with Keras(settings, root) if settings.keras else contextlib.nullcontext() as keras:
        for kind in settings.tasks:
            for batch_size in settings.batch_sizes:
                beside = keras if kind == "classification" else None
                yield from _measure(settings, root, kind, batch_size, beside)


def _measure(settings: Settings, root: Path, kind: str, batch_size: int, keras: "Keras | None") -> Iterator[Figure]:
    """The loops of one network, all precisions and stacks in turns."""
    config = _config(settings, root, kind, batch_size)
    task = build_task(config, find_classes(config.data))
    data = build_data(config.data, config.split, task, config.augment, config.seed)
    ours: dict[str, list[float]] = {precision: [] for precision in settings.precisions}
    bare: dict[str, list[float]] = {precision: [] for precision in settings.precisions}
    theirs: list[float] = []
    batches = max(1, settings.round_images // batch_size)
    for _ in range(settings.rounds + 1):
        for precision in settings.precisions:
            ours[precision].append(_lightning(config, task, data, batches, precision))
            bare[precision].append(_bare(task, data, batches, precision))
        if keras is not None:
            theirs.append(keras.round(batch_size))
    about = {"task": kind, "batch_size": batch_size, "image_size": task.image_size, "network": task.model_name}
    for precision in settings.precisions:
        name = f"{kind} {task.image_size} px, batch {batch_size}, {precision}"
        pairs = [one / other for one, other in zip(ours[precision], bare[precision], strict=True)]
        yield Figure("loop", f"{name}, busi-train", "images/s", tuple(ours[precision][1:]), True, about)
        yield Figure("loop", f"{name}, bare loop", "images/s", tuple(bare[precision][1:]), True, about)
        yield Figure("loop", f"{name}, busi-train / bare loop", "ratio", tuple(pairs[1:]), True, about)
    if keras is not None:
        name = f"{kind} {task.image_size} px, batch {batch_size}"
        best = [max(values) for values in zip(*ours.values(), strict=True)]
        pairs = [one / other for one, other in zip(best, theirs, strict=True)]
        yield Figure("loop", f"{name}, tf.keras", "images/s", tuple(theirs[1:]), True, about)
        yield Figure("loop", f"{name}, best of busi-train / tf.keras", "ratio", tuple(pairs[1:]), True, about)


def _config(settings: Settings, root: Path, kind: str, batch_size: int) -> RunConfig:
    overrides = [
        f"experiment={_EXPERIMENTS[kind]}",
        f"data.root={root}",
        f"data.batch_size={batch_size}",
        *(f"data.image_size={size}" for size in (settings.image_size,) if size),
        *("model.weights=none", "split=holdout", "split.groups=none", "trainer=cpu", "logger=none", "run_dir=unused"),
    ]
    with initialize_config_dir(str(config_dir()), version_base=None):
        return parse_config(compose("train", overrides))


def _lightning(config: RunConfig, task: BaseTask, data: BusiDataModule, batches: int, precision: str) -> float:
    """Images a second of an epoch of so many batches, as ``metrics.csv`` has them."""
    group = {**config.trainer, "precision": precision, "max_epochs": 1}
    settings = {**trainer_settings(group), "limit_train_batches": batches}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        config.callbacks = {  # the checkpoints of each round have a folder of their own
            name: item and {**item, **({"dirpath": str(directory / "checkpoints")} if "dirpath" in item else {})}
            for name, item in config.callbacks.items()
        }
        callbacks = [EpochSeed(config.seed), EpochRecord(directory), *build_callbacks(config, task)]
        build_trainer(settings, callbacks, directory).fit(task, datamodule=data)
        return float(read_rows(directory / METRICS)[0]["images_per_second"])


def _bare(task: BaseTask, data: BusiDataModule, batches: int, precision: str) -> float:
    """Images a second of a loop as short as torch allows: no metrics, no callbacks, no records."""
    network, scans, size = task.network.train(), data.train_set, data.batch_size
    optimizer = task.configure_optimizers()
    order = torch.randperm(len(scans), generator=torch.Generator().manual_seed(0)).tolist()
    clock = time.perf_counter()
    for start in range(0, batches * size, size):
        drawn = [order[number % len(order)] for number in range(start, start + size)]
        batch: dict[str, Any] = default_collate([scans[position, position] for position in drawn])
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = _loss(network, task.scale(batch["image"]), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return batches * size / (time.perf_counter() - clock)


def _loss(network: nn.Module, image: Tensor, batch: dict[str, Any]) -> Tensor:
    """Cross-entropy of classes, and cross-entropy with soft Dice of masks, as far as the network gives them."""
    outputs: Outputs = network(image)
    loss = torch.zeros(())
    if outputs.classes is not None:
        loss = loss + F.cross_entropy(outputs.classes, batch["label"])
    if outputs.masks is not None:
        logits, mask = outputs.masks, batch["mask"].float()
        shares = logits.float().sigmoid()
        overlap = 2 * (shares * mask).sum((1, 2, 3)) / ((shares + mask).sum((1, 2, 3)) + 1e-6)
        loss = loss + F.binary_cross_entropy_with_logits(logits.float(), mask) + (1 - overlap).mean()
    return loss
