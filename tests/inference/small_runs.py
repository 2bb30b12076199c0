"""Runs that were never trained, scans, and what a call of ``busi-predict`` on them left."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from busi_lab.inference import writer
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import Summary, write_summary
from busi_lab.tasks import BaseTask, ClassificationTask, SegmentationTask
from busi_lab.tasks.checkpoint import SCHEMA

OPTIM = {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "backbone_lr": None}
SCHEDULER = {"name": "none", "warmup_fraction": 0.3, "factor": 0.3, "patience": 5}
SPLIT = {"protocol": "holdout", "seed": 3, "fold": None, "digest": "abc", "leaked": 0}
SHARES = {"first": (0.7, 0.2, 0.1), "second": (0.1, 0.5, 0.4)}
"""What two classifiers say of any scan."""


def make_task(kind: type[BaseTask], size: int = 32, **model: Any) -> Any:
    settings = {"weights": "none", "in_chans": 3, "dropout": 0.0, "freeze": "none", **model}
    loss = {} if kind is ClassificationTask else {"loss": {"dice": 1.0, "bce": 1.0}}
    torch.manual_seed(0)
    return kind(model=settings, image_size=size, optim=OPTIM, scheduler=SCHEDULER, **loss).eval()  # type: ignore[call-arg]


def make_classifier(shares: tuple[float, ...] | None = None) -> ClassificationTask:
    """A small classifier; with ``shares`` one that answers them whatever it sees."""
    task: ClassificationTask = make_task(ClassificationTask, name="custom_cnn", backbone=None)
    last: Any = list(task.network.modules())[-1]
    if shares is None:
        torch.nn.init.normal_(last.weight)  # untrained, it would say about a third of everything
    else:
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor(shares).log()
    return task


def make_segmenter(lesion: bool | None = None) -> SegmentationTask:
    """A segmenter; with ``lesion`` one that takes every pixel for it, or none."""
    task: SegmentationTask = make_task(SegmentationTask, size=64, name="mobilenet_unet")
    head: Any = task.head_modules[-1]
    if lesion is None:
        torch.nn.init.normal_(head.weight)
    else:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 4.0 if lesion else -4.0)
    return task


def save_run(directory: Path, task: BaseTask, **changes: Any) -> Path:
    (directory / BEST_CHECKPOINT).parent.mkdir(parents=True)
    content = {"schema": SCHEMA, "state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(content, directory / BEST_CHECKPOINT)
    values: dict[str, Any] = {"task": task.kind, "experiment": directory.name, "seed": 0, "split": SPLIT, **changes}
    write_summary(directory, Summary(**{"status": "finished", **values}))
    return directory


@dataclass
class Called:
    """What a call of ``busi-predict`` left."""

    code: int
    lines: list[dict[str, Any]]
    errors: list[str]
    out: Path

    def table(self) -> list[dict[str, str]]:
        with (self.out / writer.TABLE).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / f"{name}.json").read_text())
        return found

    def picture(self, name: str) -> NDArray[Any]:
        """Its pixels; a palette's colours, not their numbers."""
        picture = Image.open(self.out / f"{name}.png")
        return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)


Cli = Callable[..., Called]


def scan(path: Path, height: int = 24, width: int = 32, seed: int = 0) -> Path:
    """Speckle with dark blobs, as a file of the format that ``path`` ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path
