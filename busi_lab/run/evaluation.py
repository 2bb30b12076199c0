"""A finished run on another split or on other data -> a result directory of its own."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import OmegaConf

from busi_lab.config import EvalConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.errors import UserError
from busi_lab.files import PROBABILITY_DIGITS, write_atomically, write_rows
from busi_lab.inference.explain import Explainer
from busi_lab.run.build import build_data, build_trainer, trainer_settings
from busi_lab.run.environment import device_name, environment_record, quieten
from busi_lab.run.leaks import count_leaked
from busi_lab.run.probes import cases_with_lesion, explain, read_flags, shortcuts, stress, stress_columns
from busi_lab.run.record import leak_line, plain_metrics, refuse_nonfinite, split_record, with_columns, write_inputs
from busi_lab.run.session import session
from busi_lab.run_directory import (
    CLASSES,
    EXPLANATIONS,
    FLAGS,
    MASKS,
    PREDICTIONS,
    SHORTCUTS,
    SOURCE_PREDICTIONS,
    STRESS,
    VALIDATION,
    Summary,
    refuse_result,
    write_masks,
)
from busi_lab.tasks import BaseTask, load_task
from busi_lab.tracking import Job, Result

log = logging.getLogger(__name__)

_UNCOUNTED = "leaks: not counted, because the data that the run learnt from are not at hand"
_SHOWN = ("accuracy", "accuracy_without_normal", "f1", "auroc_malignant", "dice", "iou")


def evaluate(config: EvalConfig, resolved: Any) -> Summary:
    """Evaluate a run and write a result directory in the contract of runs.

    Args:
        config: the checked configuration; ``data`` and ``split`` are what is to be evaluated.
        resolved: the same as an OmegaConf container, saved as ``config.yaml``.

    Raises:
        UserError: an input is wrong; nothing has been written then, but for a scan that has become unreadable since
            the data were read, which leaves a failed result.
    """
    started = time.perf_counter()
    source_directory, directory = Path(config.run), Path(config.run_dir)
    quieten()
    settings = trainer_settings({**config.trainer, "max_epochs": 1})
    task, source = load_task(source_directory)
    config.data.image_size = resolved.data.image_size = task.image_size
    data = build_data(config.data, config.split, task)
    if not data.manifest.test:
        raise UserError(f"{data.index.root}: no image to test on; choose another data= or split=")
    flags = read_flags(Path(config.flags), data) if config.flags else []
    explainer = Explainer([task] if task.has_classes else [], [config.explain]) if config.explain else None
    if config.shortcuts and not (task.has_classes and cases_with_lesion(data)):
        raise UserError("shortcuts=true: needs a run with classes, and benign or malignant images with a lesion mask")
    trainer = build_trainer(settings, [], directory)
    summary = _start_summary(config, source, source_directory, data, trainer)
    _announce(summary, source, source_directory)
    name = f"{summary.experiment}-on-{summary.data['name']}"
    job = Job(directory, name, "eval", OmegaConf.to_container(resolved))  # type: ignore[arg-type]
    with session(summary, job, config.logger, started, refuse_result) as opened:
        opened.trackers.start(summary)
        write_inputs(directory, resolved, data)
        rows = _test(task, data, trainer, summary)
        write_rows(directory / PREDICTIONS, rows, rows[0], PROBABILITY_DIGITS)
        masks = task.predicted_masks()
        write_masks(directory / MASKS, masks)
        _copy_source(source_directory, directory)
        if flags:
            write_rows(directory / FLAGS, flags, ("image", "flag"))
        if config.stress:
            write_rows(directory / STRESS, stress(task, data, trainer, summary), stress_columns(task))
        if config.shortcuts:
            found = list(shortcuts(task, data, trainer))
            write_rows(directory / SHORTCUTS, found, found[0], PROBABILITY_DIGITS)
        if explainer:
            task.to(trainer.strategy.root_device)  # after a test it lies in main memory
            summary.metrics |= explain(explainer, data, rows, directory)
        if opened.trackers:
            maps = directory / EXPLANATIONS if explainer else None
            opened.result = Result(summary, rows, data.pictures(), data.true_masks(), masks, maps)
    figures = [
        f"test/{name} {summary.metrics[f'test/{name}']:.4f}" for name in _SHOWN if f"test/{name}" in summary.metrics
    ]
    log.info("%s\nresult directory: %s", "  ".join(figures), directory)
    return summary


def _start_summary(
    config: EvalConfig, source: Summary, source_directory: Path, data: BusiDataModule, trainer: Trainer
) -> Summary:
    """The source's record, with what is evaluated in place of what was trained on."""
    leaked = count_leaked(source, source_directory, data)
    return replace(
        source,
        status="failed",
        error=None,
        split=split_record(data.manifest, leaked),
        data={
            "name": config.data.name,
            "root": str(data.index.root.resolve()),
            "digest": data.index.digest,
            "train": source.data.get("train"),
            "val": source.data.get("val"),
            "test": len(data.manifest.test),
            "classes": sorted({case.label for case in data.tested_cases()} - {""}, key=CLASSES.index),
        },
        metrics={name: value for name, value in source.metrics.items() if name.startswith("val/")},
        seconds={},
        device=device_name(trainer),
        peak_memory_bytes=None,
        peak_gpu_memory_bytes=None,
        precision=str(trainer.precision),
        wandb=None,
        command=config.command,
        source={
            "directory": str(source_directory.resolve()),
            "data": source.data.get("name"),
            "data_digest": source.data.get("digest"),
            "split": source.split,
            "test": source.data.get("test"),
            "metrics": {name: value for name, value in source.metrics.items() if name.startswith("test/")},
        },
        **environment_record(),
    )


def _announce(summary: Summary, source: Summary, source_directory: Path) -> None:
    """Say what is evaluated, what the run cannot know, and how far the test images are known to it."""
    log.info(
        "%s of %s on %s, split %s: %d test images; %s",
        *(summary.model, source_directory, summary.data["name"], summary.split["protocol"], summary.data["test"]),
        summary.device,
    )
    learnt = source.data.get("classes") or list(CLASSES)
    if foreign := [name for name in summary.data["classes"] if name not in learnt]:
        log.info(
            "the run has learnt no %s scans, which are tested here; data.classes=[%s] leaves them out",
            *(" or ".join(foreign), ",".join(learnt)),
        )
    log.info(leak_line(summary) if summary.split["leaked"] is not None else _UNCOUNTED)


def _test(task: BaseTask, data: BusiDataModule, trainer: Trainer, summary: Summary) -> list[dict[str, Any]]:
    """Test the task and note its metrics; returns the rows of ``predictions.csv``."""
    clock = time.perf_counter()
    trainer.test(task, datamodule=data, verbose=False)
    refuse_nonfinite(task, "test")
    summary.metrics |= plain_metrics(task.results["test"], "test")
    summary.seconds["test"] = time.perf_counter() - clock
    rows = with_columns(task.predictions(), data)
    summary.metrics |= _without_normal(rows)
    return rows


def _without_normal(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy between benign and malignant, of test images without normal ones; says what is compared."""
    if "prediction" not in rows[0] or {row["label"] for row in rows} != {"benign", "malignant"}:
        return {}
    right = [(row["p_malignant"] > row["p_benign"]) == (row["label"] == "malignant") for row in rows]
    log.info(
        "the test images are benign and malignant alone: auroc_malignant compares malignant with the rest by the "
        "probability of malignant; accuracy counts a scan called normal as wrong; accuracy_without_normal takes the "
        "more probable one of benign and malignant"
    )
    return {"test/accuracy_without_normal": sum(right) / len(right)}


def _copy_source(source: Path, directory: Path) -> None:
    """Take along what intervals, operating points and calibration need of the run, so that the result stands alone."""
    for name, copy in ((PREDICTIONS, SOURCE_PREDICTIONS), (VALIDATION, VALIDATION)):
        if (source / name).is_file():
            write_atomically(directory / copy, (source / name).read_bytes())
