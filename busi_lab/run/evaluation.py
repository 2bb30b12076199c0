"""A finished run on another split or on other data -> a result directory of its own."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import OmegaConf

from busi_lab.classes import Classes
from busi_lab.config import EvalConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.errors import UserError
from busi_lab.exported.sessions import Runtime
from busi_lab.files import PROBABILITY_DIGITS, write_atomically, write_rows
from busi_lab.inference.explain import Explainer
from busi_lab.plurals import counted
from busi_lab.run.build import build_data, build_trainer, trainer_settings
from busi_lab.run.environment import device_name, environment_record, quieten
from busi_lab.run.first_stage import FirstStage, recorded_first_stage
from busi_lab.run.leaks import known_to
from busi_lab.run.lesions import lesion_rows, write_lesions
from busi_lab.run.probes import cases_with_lesion, explain, read_flags, shortcuts, stress, stress_columns
from busi_lab.run.record import (
    class_counts,
    class_line,
    class_roles,
    data_name,
    data_record,
    leak_line,
    plain_metrics,
    refuse_nonfinite,
    split_record,
    with_columns,
    write_inputs,
)
from busi_lab.run.session import session
from busi_lab.run.unleaked import WITHOUT_NEAR_COPIES, figures_without
from busi_lab.run_directory import (
    CONFIG,
    EXPLANATIONS,
    FLAGS,
    MASKS,
    PREDICTIONS,
    SHORTCUTS,
    SOURCE_CONFIG,
    SOURCE_PREDICTIONS,
    STRESS,
    VALIDATION,
    refuse_result,
    write_masks,
)
from busi_lab.summary import Source, Summary
from busi_lab.tasks import BaseTask, load_task
from busi_lab.tracking import Job, Result

log = logging.getLogger(__name__)

_UNCOUNTED = "leaks: not counted, because the data that the run learnt from are not at hand"


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
    task, source = load_task(source_directory, Runtime(config.backend))
    task.learnt = source.data.classes or task.roles.names
    config.data.image_size = resolved.data.image_size = task.image_size
    first_stage = _first_stage(config, source, source_directory)
    data = build_data(config.data, config.split, task, either=True)
    task.roles = data.roles  # a run of masks alone judges data of any classes
    if not data.manifest.test:
        raise UserError(f"{data.index.root}: no image to test on; choose another data= or split=")
    if config.explain and task.needs_labels and not data.delivers[0]:
        raise UserError(f"explain={config.explain}: explains classes, and the scans here have no labels; leave it out")
    flags = read_flags(Path(config.flags), data) if config.flags else []
    explainer = Explainer([task] if task.needs_labels else [], [config.explain]) if config.explain else None
    if config.shortcuts and not (task.needs_labels and cases_with_lesion(data)):
        raise UserError("shortcuts=true: needs a run with classes, and images with a lesion mask")
    cut = first_stage.cut(data) if first_stage else None
    trainer = build_trainer(settings, [], directory)
    leaked = known_to(source_directory, data)
    if first_stage and cut:
        known = first_stage.leaked(data)
        source.first_stage = replace(cut, leaked=None if known is None else len(known))
        leaked = None if leaked is None else (known or {}) | leaked
    summary = _start_summary(config, source, source_directory, data, trainer, leaked)
    _announce(summary, source, source_directory)
    name = f"{summary.experiment}-on-{summary.data.name}"
    job = Job(directory, name, "eval", OmegaConf.to_container(resolved))  # type: ignore[arg-type]
    with session(summary, job, config.logger, started, refuse_result) as opened:
        opened.trackers.start(summary)
        write_inputs(directory, resolved, data)
        rows = _test(task, data, trainer, summary, leaked)
        write_rows(directory / PREDICTIONS, rows, rows[0], PROBABILITY_DIGITS)
        masks = task.predicted_masks()
        write_masks(directory / MASKS, masks)
        write_lesions(directory, lesion_rows(task, data, "test"))
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
    log.info("%s\nresult directory: %s", _result_line(summary, task.roles), directory)
    return summary


def _first_stage(config: EvalConfig, source: Summary, directory: Path) -> FirstStage | None:
    """What cuts the scans before the run sees them, as it was when the run was trained.

    Raises:
        UserError: it has moved or changed, or something is asked for that needs whole scans.
    """
    if source.first_stage is None:
        return None
    for key in ("stress", "shortcuts", "explain"):
        if getattr(config, key):
            raise UserError(
                f"{key}: needs a run that sees whole scans, and this one sees cut ones (data.roi); leave it out"
            )
    return recorded_first_stage(directory, source.first_stage)


def _result_line(summary: Summary, classes: Classes) -> str:
    """The figures that are said at the end, those without near-copies beside them."""
    names = ("accuracy", classes.accuracy_lesions, "f1", "f1_present", classes.auroc_positive, classes.auroc_lesions)
    told = []
    for name in (f"test/{name}" for name in (*names, "dice", "iou") if name):
        if name in summary.metrics:
            rest = summary.metrics.get(f"{name}{WITHOUT_NEAR_COPIES}")
            without = "" if rest is None else f" ({rest:.4f} without near-copies)"
            told.append(f"{name} {summary.metrics[name]:.4f}{without}")
    return "  ".join(told)


def _start_summary(
    config: EvalConfig,
    source: Summary,
    source_directory: Path,
    data: BusiDataModule,
    trainer: Trainer,
    leaked: Mapping[str, str] | None,
) -> Summary:
    """The source's record, with what is evaluated in place of what was trained on."""
    classes = tuple(name for name, count in class_counts(data).items() if count)
    return replace(
        source,
        status="failed",
        error=None,
        split=split_record(data.manifest, None if leaked is None else len(leaked), data.near_copies),
        data=data_record(data, data_name(config.data.name, data.index.root), classes, data.roles, learnt=False),
        metrics={name: value for name, value in source.metrics.items() if name.startswith("val/")},
        seconds={},
        device=device_name(trainer),
        peak_memory_bytes=None,
        peak_gpu_memory_bytes=None,
        precision=str(trainer.precision),
        wandb=None,
        command=config.command,
        source=Source(
            directory=str(source_directory.resolve()),
            data=source.data.name,
            data_digest=source.data.digest,
            split=source.split,
            train=source.data.train,
            val=source.data.val,
            test=source.data.test,
            metrics={name: value for name, value in source.metrics.items() if name.startswith("test/")},
            **class_roles(source.data.roles),
        ),
        **environment_record(),
    )


def _announce(summary: Summary, source: Summary, source_directory: Path) -> None:
    """Say what is evaluated, what the run cannot know, and how far the test images are known to it."""
    log.info(
        "%s of %s on %s, split %s: %s; %s",
        *(summary.model, source_directory, summary.data.name, summary.split.protocol),
        counted(summary.data.test or 0, "test image"),
        summary.device,
    )
    learnt = source.data.classes or source.data.roles.names
    alike = summary.data.roles.names == source.data.roles.names  # else they are other words for lesions
    if alike and (foreign := [name for name in summary.data.classes if name not in learnt]):
        log.info(
            "the run has learnt no %s scans, which are tested here; data.classes=[%s] leaves them out",
            *(" or ".join(foreign), ",".join(learnt)),
        )
    counted_or_why = summary.split.leaked is not None or summary.split.unsearched
    log.info(leak_line(summary) if counted_or_why else _UNCOUNTED)
    if summary.split.leaked:
        log.info("predictions.csv names, as near_copy_of, an image for each of these that was learnt from")
    log.info(class_line(summary))


def _test(
    task: BaseTask, data: BusiDataModule, trainer: Trainer, summary: Summary, leaked: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Test the task and note its metrics; returns the rows of ``predictions.csv``, which name what has leaked."""
    clock = time.perf_counter()
    trainer.test(task, datamodule=data, verbose=False)
    refuse_nonfinite(task, "test")
    summary.metrics |= plain_metrics(task.results["test"], "test")
    summary.seconds["test"] = time.perf_counter() - clock
    rows = task.predictions()
    if not leaked:
        return with_columns(rows, data)
    summary.metrics |= figures_without(rows, leaked, task.learnt, task.roles)
    named = [
        {"image": row["image"], "label": row["label"], "near_copy_of": leaked.get(row["image"], ""), **row}
        for row in rows
    ]
    return with_columns(named, data)


def _copy_source(source: Path, directory: Path) -> None:
    """Take along what a comparison needs of the run, so that the result stands alone."""
    copies = {PREDICTIONS: SOURCE_PREDICTIONS, VALIDATION: VALIDATION, CONFIG: SOURCE_CONFIG}
    for name, copy in copies.items():
        if (source / name).is_file():
            write_atomically(directory / copy, (source / name).read_bytes())
