"""What a run directory says of a run: its summary before anything is known, its inputs, its tables."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import OmegaConf
from torch import Tensor

from busi_lab.classes import Classes
from busi_lab.config import RunConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.dataset import invalid_because, is_synthetic
from busi_lab.data.groups import NO_SEARCH
from busi_lab.data.manifest import Manifest, write_manifest
from busi_lab.data.options import options_record
from busi_lab.errors import UserError
from busi_lab.files import write_atomically
from busi_lab.models.inputs import STRIDE, PaddedNetwork
from busi_lab.run.environment import device_name, environment_record, installed_packages
from busi_lab.run_directory import CONFIG, FEW_IMAGES, PACKAGES, SPLIT, add_further
from busi_lab.summary import DataRecord, Objective, Source, SplitRecord, Summary
from busi_lab.tasks import BaseTask


def start_summary(config: RunConfig, data: BusiDataModule, task: BaseTask, trainer: Trainer) -> Summary:
    """What is known of a run before it is fitted; it counts as failed until it has ended."""
    return Summary(
        status="failed",
        task=task.kind,
        experiment=config.name or task.model_name,
        model=task.model_name,
        weights=config.model.weights,
        seed=config.seed,
        split=split_record(data.manifest, data.leaked(), data.near_copies),
        data=data_record(data, data_name(config.data.name, data.index.root), learnt_classes(data), task.roles),
        parameters=sum(parameter.numel() for parameter in task.network.parameters()),
        objective=Objective(task.monitor, task.monitor_mode),
        device=device_name(trainer),
        precision=str(trainer.precision),
        command=config.command,
        **environment_record(),
    )


def data_record(
    data: BusiDataModule, name: str, classes: tuple[str, ...], roles: Classes, learnt: bool = True
) -> DataRecord:
    """What ``summary.json`` says of data.

    Args:
        data: set up.
        name: what they are called.
        classes: that take part.
        roles: all classes.
        learnt: whether something learnt from them; of an evaluation, test images are counted alone.
    """
    manifest = data.manifest
    return DataRecord(
        name=name,
        root=str(data.index.root.resolve()),
        **options_record(data.index.options),
        digest=data.index.digest,
        train=len(manifest.train) if learnt else None,
        val=len(manifest.val) if learnt else None,
        test=len(manifest.test),
        classes=classes,
        test_classes=class_counts(data),
        synthetic=is_synthetic(data.index.root),
        **class_roles(roles),
    )


def class_roles(classes: Classes) -> dict[str, Any]:
    """The fields of a record that name the classes and their roles."""
    return {
        "class_names": classes.names,
        "positive_class": classes.positive,
        "class_without_lesion": classes.without_lesion,
    }


def data_name(name: str, root: Path) -> str:
    """What the data of a folder are called; what is wrong with them is said."""
    wrong = invalid_because(root)
    return f"{name} (invalid protocol: {wrong})" if wrong else name


def learnt_classes(data: BusiDataModule) -> tuple[str, ...]:
    """The classes of the training images, in their order."""
    return tuple(name for number, name in enumerate(data.roles.names) if number in data.train_set.labels)


def class_counts(data: BusiDataModule) -> dict[str, int]:
    """Test images of each class; those without a label are in none."""
    labels = Counter(case.label for case in data.tested_cases())
    return {name: labels[name] for name in data.index.classes.names}


def split_record(manifest: Manifest, leaked: int | None, near_copies: str) -> SplitRecord:
    """What ``summary.json`` says of a split."""
    wrong = f" (invalid protocol: {manifest.invalid})" if manifest.invalid else ""
    return SplitRecord(
        protocol=f"{manifest.protocol}{wrong}",
        seed=manifest.seed,
        fold=manifest.fold,
        folds=manifest.folds,
        digest=manifest.digest,
        test_digest=manifest.test_digest,
        leaked=leaked,
        version=manifest.version,
        imbalance=manifest.imbalance,
        near_copies=near_copies,
    )


def write_inputs(directory: Path, resolved: Any, data: BusiDataModule) -> None:
    """Write the configuration, the split and the list of installed packages.

    Raises:
        UserError: the directory cannot be written to.
    """
    try:
        write_atomically(directory / CONFIG, OmegaConf.to_yaml(resolved))
        write_manifest(directory / SPLIT, data.full_manifest)
        write_atomically(directory / PACKAGES, installed_packages())
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written to ({error.strerror}); set hydra.run.dir to a writable folder"
        ) from None


def with_columns(rows: list[dict[str, Any]], data: BusiDataModule) -> list[dict[str, Any]]:
    """Rows of predictions with the group of each image behind its label, and further columns at the end."""
    return [
        add_further(
            {"image": row["image"], "label": row["label"], "group": data.group(row["image"]), **row},
            data.further(row["image"]),
        )
        for row in rows
    ]


def refuse_nonfinite(task: BaseTask, split: str) -> None:
    """Refuse what a network says that overflows on some image, though its weights are finite.

    Args:
        task: that has just been judged.
        split: val or test.

    Raises:
        UserError: the loss of an image, and with it the mean over all of them, is infinite or no number.
    """
    loss = float(task.results[split]["loss"])
    if not math.isfinite(loss):
        raise UserError(
            f"{split}/loss is {loss}: the network gives infinite values or none for some image, so its figures mean "
            "nothing; train with a lower optim.lr, or with trainer.precision=32-true"
        )


def plain_metrics(values: dict[str, Tensor], split: str) -> dict[str, Any]:
    """Metric tensors as numbers and lists, a confusion matrix for the test alone."""
    return {
        f"{split}/{name}": value.item() if value.numel() == 1 else value.tolist()
        for name, value in values.items()
        if value.numel() == 1 or split == "test"
    }


def headline(config: RunConfig, summary: Summary, task: BaseTask) -> str:
    """What is going to be trained, in a line."""
    data, split = summary.data, summary.split
    size = config.data.image_size
    pads = isinstance(task.network, PaddedNetwork) and size % STRIDE
    padded = f" (padded to {size + -size % STRIDE} by its edges)" if pads else ""
    return (
        f"{summary.experiment}: {summary.model}, weights {summary.weights}, {summary.parameters or 0:,} parameters, "
        f"seed {summary.seed}; {data.name} at {size} px{padded}, "
        f"split {split.protocol} {split.digest}: "
        f"{data.train} train, {data.val} val, {data.test} test; {summary.device}, {summary.precision}"
    )


def class_line(summary: Summary) -> str:
    """How many test images there are of each class, in a line, and of which there are few."""
    counts = summary.data.test_classes
    few = [name for name, count in counts.items() if 0 < count < FEW_IMAGES]
    told = [f"{count} {name}" for name, count in counts.items()]
    if unknown := (summary.data.test or 0) - sum(counts.values()):
        told.append(f"{unknown} without a label")
    warning = f"; fewer than {FEW_IMAGES} of {' and '.join(few)}, whose figures say little" if few else ""
    return f"test images: {', '.join(told)}{warning}"


def leak_line(summary: Summary) -> str:
    """How far the test images are known to the model, in a line."""
    if summary.split.unsearched:
        return f"leaks: not counted, because near-copies are not looked for (split.groups={NO_SEARCH})"
    leaked, tested = summary.split.leaked or 0, summary.data.test or 0
    share = f"{'at least ' if leaked else ''}{leaked} of {tested} test images ({leaked / max(tested, 1):.0%})"
    advice = "; split=grouped_holdout keeps them apart" if leaked and not summary.source else ""
    across = (summary.source or Source()).data_digest not in (None, summary.data.digest)
    kin = "a near-copy (patients of two datasets are not compared)" if across else "a near-copy or the same patient"
    return f"leaks: {share} have {kin} in training or validation{advice}"


def result_line(summary: Summary, directory: Path) -> str:
    """What came of a run, in two lines."""
    shown = [f"{key} {value:.4f}" for key, value in summary.metrics.items() if isinstance(value, float)]
    kept = [text for text in shown if text.split("/")[1].split()[0] in ("accuracy", "f1", "auroc", "dice", "iou")]
    speed = f"{summary.images_per_second:.0f} images/s" if summary.images_per_second else ""
    best = f"best epoch {(summary.best_epoch or 0) + 1} of {summary.epochs}"
    return f"{best}: {'  '.join(kept)}  {speed}\nrun directory: {directory}"
