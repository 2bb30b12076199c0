"""One run from a checked configuration to a run directory: fit, validate the best epoch, test it once."""

import logging
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from busi_lab.config import RunConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.errors import UserError, one_line
from busi_lab.files import PROBABILITY_DIGITS, read_rows, write_rows
from busi_lab.models.transfer import describe_weights
from busi_lab.plurals import counted
from busi_lab.run.averaging import WeightAverage
from busi_lab.run.build import (
    build_callbacks,
    build_data,
    build_task,
    build_trainer,
    find_classes_to_learn,
    trainer_settings,
)
from busi_lab.run.calibration import learn_confidence
from busi_lab.run.callbacks import EpochRecord, EpochSeed, MaskPanel
from busi_lab.run.checkpoints import LastCheckpoint
from busi_lab.run.environment import quieten
from busi_lab.run.first_stage import FirstStage, find_first_stage
from busi_lab.run.leaks import inherited, known_to
from busi_lab.run.lesions import Rows, lesion_rows, write_lesions
from busi_lab.run.precision import AUTO, decide_precision
from busi_lab.run.record import (
    class_line,
    headline,
    leak_line,
    learnt_classes,
    plain_metrics,
    refuse_nonfinite,
    result_line,
    start_summary,
    with_columns,
    write_inputs,
)
from busi_lab.run.resume import check_resumable, refuse_occupied
from busi_lab.run.session import session
from busi_lab.run.state import State, find_state
from busi_lab.run.stop import StopRequest
from busi_lab.run.teaching import add_guides, find_teacher
from busi_lab.run_directory import (
    BEST_CHECKPOINT,
    MASKS,
    METRICS,
    PREDICTIONS,
    VALIDATION,
    median_speed,
    write_masks,
)
from busi_lab.summary import FirstStageRecord, Summary
from busi_lab.tasks import BaseTask
from busi_lab.tasks.checkpoint import read_checkpoint
from busi_lab.tracking import Job, Result, Trackers

log = logging.getLogger(__name__)

_NOTHING_TO_TRAIN_ON = "split=all tests everything and leaves nothing to train on; it is for busi-eval"


def run_experiment(config: RunConfig, resolved: Any) -> Summary:
    """Carry out one run, or continue one, and write its directory.

    What is wrong with the configuration or the data is found before the run directory is written to. A run that
    fails after that leaves a summary with status ``failed``; one that is asked to stop saves its state.

    Args:
        config: the checked configuration.
        resolved: the same as an OmegaConf container, saved as ``config.yaml``.

    Raises:
        UserError: an input is wrong.
        Interrupted: SIGTERM or Ctrl-C; the run can be continued.
    """
    started = time.perf_counter()
    directory = Path(config.run_dir)
    quieten()
    settings = trainer_settings(config.trainer)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    classes = find_classes_to_learn(config.data)
    task = build_task(config, classes)
    add_guides(config, task)
    first_stage = find_first_stage(config.data, classes, task) if config.data.roi else None
    data = _build_training_data(config, task)
    cut = first_stage.cut(data) if first_stage else None
    task.learnt = learnt_classes(data)
    if settings.get("precision") == AUTO:
        settings["precision"] = decide_precision(task, data.batch_size, settings, directory)
        resolved.trainer.precision = settings["precision"]
    if config.compile:
        task.network.compile()
    callbacks = build_callbacks(config, task)
    epochs = config.trainer["max_epochs"]
    state = find_state(directory, task, data.manifest.digest, epochs, data.origin) if config.resume else None
    record = EpochRecord(directory)
    average = [] if config.ema is None else [WeightAverage(config.ema)]
    trainer = build_trainer(settings, [EpochSeed(config.seed), *average, record, *callbacks], directory)
    summary = start_summary(config, data, task, trainer)
    if not trainer.is_global_zero:
        _fit(task, data, trainer, state)
        if not record.pruned:
            _judge(task, data, trainer, config.test, summary)
        return summary
    log.info(headline(config, summary, task))
    _note_earlier_runs(task, first_stage, cut, data, summary)
    log.info(leak_line(summary))
    for sentence in summary.split.imbalance:
        log.warning("split: %s", sentence)
    if config.test:
        log.info(class_line(summary))
        if foreign := [name for name, n in summary.data.test_classes.items() if n and name not in task.learnt]:
            log.warning(
                "the training images have no %s scans, which are tested; data.classes=[%s] leaves them out",
                *(" or ".join(foreign), ",".join(task.learnt)),
            )
    if state is not None:
        where = "all epochs are done" if state.fit_finished else f"in epoch {state.epoch + 1}"
        log.info("continued: %s", where)
    name = f"{summary.experiment}-seed{summary.seed}"
    job = Job(directory, name, "train", OmegaConf.to_container(resolved))  # type: ignore[arg-type]
    refuse = check_resumable if config.resume else refuse_occupied  # again: another process may have been here since
    with _stop_request(callbacks).watch(), session(summary, job, config.logger, started, refuse) as opened:
        opened.trackers.start(summary, task.monitor, task.monitor_mode, task.metric_names)
        record.publish, record.publish_earlier = opened.trackers.epoch, opened.trackers.earlier
        if state is not None and state.fit_finished:  # nothing is fitted, so the record is not asked
            opened.trackers.earlier(read_rows(directory / METRICS))
        _show_masks(trainer, task, data, opened.trackers)
        write_inputs(directory, resolved, data)
        _fit(task, data, trainer, state)
        _summarize_epochs(directory, summary)
        if record.pruned:
            opened.status = "pruned"
            _summarize_pruned(directory, summary)
        else:
            predicted = _judge(task, data, trainer, config.test, summary)
            _write_tables(directory, predicted)
            if opened.trackers:
                shown = (data.pictures(), data.true_masks()) if config.test else ({}, {})
                opened.result = Result(summary, predicted.test, *shown, predicted.masks)
    for callback in callbacks:
        if isinstance(callback, LastCheckpoint):
            callback.discard()
    if record.pruned:
        log.info("pruned by the search after %s", counted(summary.epochs or 0, "epoch"))
    else:
        log.info(result_line(summary, directory))
    return summary


def _note_earlier_runs(
    task: BaseTask, first_stage: FirstStage | None, cut: FirstStageRecord | None, data: BusiDataModule, summary: Summary
) -> None:
    """Record what the network started from, who taught it, what has cut its scans, and what test images these know."""
    learnt: set[str] = set()
    if task.initial is not None:
        log.info(describe_weights(task.initial))
        found = inherited(task.initial, data)
        learnt |= set(found or {})
        summary.initial = replace(task.initial, leaked=None if found is None else len(found))
        _warn_of_leaks("behind these weights has", len(found or {}), summary)
    if (teacher := find_teacher(task)) is not None:
        log.info("teacher: %s, which has learnt from %s", teacher.model, teacher.data)
        taught = known_to(Path(str(teacher.directory)), data)
        learnt |= set(taught or {})
        summary.teacher = replace(teacher, leaked=None if taught is None else len(taught))
        _warn_of_leaks("that teaches this one (task.teacher) has", len(taught or {}), summary)
    if first_stage is not None and cut is not None:
        known = first_stage.leaked(data)
        learnt |= set(known or {})
        summary.first_stage = replace(cut, leaked=None if known is None else len(known))
        _warn_of_leaks("that cuts these scans (data.roi) has", len(known or {}), summary)
    if summary.split.leaked is not None and learnt:
        together = learnt | set(data.manifest.leaked(data.groups))
        summary.split = replace(summary.split, leaked=len(together))


def _warn_of_leaks(which: str, count: int, summary: Summary) -> None:
    if count and summary.split.leaked is not None:
        log.warning("leaks: the run %s learnt from %d of the test images, their near-copies or patients", which, count)


def _build_training_data(config: RunConfig, task: BaseTask) -> BusiDataModule:
    """The data of a run, which must leave something to train on."""
    if config.split.protocol == "all" and not config.split.manifest:
        raise UserError(_NOTHING_TO_TRAIN_ON)
    data = build_data(config.data, config.split, task, config.augment, config.seed)
    if data.full_manifest.protocol == "all":
        raise UserError(f"split.manifest={config.split.manifest}: {_NOTHING_TO_TRAIN_ON}")
    for name in ("train", "val", *(("test",) if config.test else ())):
        if not getattr(data.manifest, name):
            raise UserError(
                f"{data.index.root}: no image is left for {name} by split={config.split.protocol}, data.classes and "
                "data.subset; choose others"
            )
    return data


def _stop_request(callbacks: list[Callback]) -> StopRequest:
    """What notes the signals: the callback that saves the state, where there is one."""
    return next((item.stop for item in callbacks if isinstance(item, LastCheckpoint)), StopRequest())


def _show_masks(trainer: Trainer, task: BaseTask, data: BusiDataModule, trackers: Trackers) -> None:
    """Send the masks of some validation scans, the same ones every time, to the trackers every few epochs."""
    if not task.needs_masks:
        return
    for wanted, every, publish in trackers.mask_panels:
        count = min(wanted, len(data.val_set))
        chosen = [data.val_set[round(i * (len(data.val_set) - 1) / max(1, count - 1))] for i in range(count)]
        if chosen:
            trainer.callbacks.insert(0, MaskPanel(chosen, every, publish))  # type: ignore[attr-defined]


def _fit(task: BaseTask, data: BusiDataModule, trainer: Trainer, state: State | None) -> None:
    """Fit from the beginning, or from where a run was cut; nothing where it was cut after its last epoch."""
    try:
        if state is None:
            trainer.fit(task, datamodule=data)
        elif not state.fit_finished:
            trainer.fit(task, datamodule=data, ckpt_path=state.checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise UserError(
            f"Lightning refuses this run: {one_line(error)}; trackers are no loggers of the Trainer, so callbacks that "
            "need one do not work, and metrics.csv has the learning rate"
        ) from None
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(
            f"compile=true: this network is not compiled here ({one_line(error)[:160]}); set compile=false"
        ) from None
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device has not enough memory for batches of {data.batch_size} scans of {task.image_size} pixels "
            f"({one_line(error)[:80]}); lower data.batch_size or data.image_size"
        ) from None
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"data.batch_size={data.batch_size} with data.image_size={task.image_size}: batch norm has one value per "
            "channel to learn from; raise one of them"
        ) from None


def _summarize_epochs(directory: Path, summary: Summary) -> None:
    """Take what the summary says of the epochs from their record, which a continued run has whole."""
    epochs = read_rows(directory / METRICS)
    summary.epochs = len(epochs)
    summary.images_per_second = median_speed(epochs)
    summary.seconds["fit"] = sum(float(row["seconds"]) for row in epochs)


def _summarize_pruned(directory: Path, summary: Summary) -> None:
    """What a run that a search has ended has shown on validation, in its best epoch."""
    metric, mode = summary.objective.metric or "", summary.objective.mode
    rows = [row for row in read_rows(directory / METRICS) if row.get(metric)]
    if rows:
        best = (min if mode == "min" else max)(rows, key=lambda row: float(row[metric]))
        summary.best_epoch = int(best["epoch"])
        summary.metrics |= {key: float(value) for key, value in best.items() if key.startswith("val/") and value}


class Predicted(NamedTuple):
    """Rows of ``predictions.csv`` and ``validation.csv``, the test masks by case id, and rows of ``lesions.csv``."""

    test: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    masks: dict[str, Any]
    lesions: Rows | None


def _judge(task: BaseTask, data: BusiDataModule, trainer: Trainer, test: bool, summary: Summary) -> Predicted:
    """Judge the best epoch on validation and, where it is wanted, once on test.

    In a distributed run every rank must call this, because each gathers what all predicted.

    Args:
        task: takes the weights of the best epoch.
        data: of the run.
        trainer: that has fitted the task.
        test: False leaves the test images untouched.
        summary: gets the metrics and how long they took.
    """
    if not (Path(trainer.default_root_dir) / BEST_CHECKPOINT).exists():
        raise UserError(
            "no epoch was validated, so there are no best weights to judge: let trainer.max_steps or trainer.max_time "
            "leave room for an epoch"
        )
    best = read_checkpoint(Path(trainer.default_root_dir) / BEST_CHECKPOINT)
    summary.best_epoch = best["epoch"]
    task.load_state_dict(best["state_dict"])
    clock = time.perf_counter()
    for split, judge in (("val", trainer.validate), ("test", trainer.test))[: 1 + test]:
        judge(task, datamodule=data, verbose=False)
        refuse_nonfinite(task, split)
        summary.metrics.update(plain_metrics(task.results[split], split))
    summary.seconds["test"] = time.perf_counter() - clock
    summary.inference_milliseconds = _time_inference(task, trainer)
    validation = with_columns(task.predictions("val"), data)
    learn_confidence(summary, validation, lesion_rows(task, data, "val"), task.roles.names)
    if not test:
        return Predicted([], validation, {}, None)
    rows, lesions = with_columns(task.predictions("test"), data), lesion_rows(task, data, "test")
    return Predicted(rows, validation, task.predicted_masks(), lesions)


def _write_tables(directory: Path, predicted: Predicted) -> None:
    """Write what was predicted for validation and, where it was touched, for test."""
    for name, rows in ((VALIDATION, predicted.validation), (PREDICTIONS, predicted.test)):
        if rows:
            write_rows(directory / name, rows, rows[0], PROBABILITY_DIGITS)
    write_masks(directory / MASKS, predicted.masks)
    write_lesions(directory, predicted.lesions)


def _time_inference(task: BaseTask, trainer: Trainer) -> float:
    """Median milliseconds of the network for one scan alone, in the run's precision."""
    device = trainer.strategy.root_device
    task.to(device).eval()
    image = torch.zeros(1, 1, task.image_size, task.image_size, dtype=torch.uint8, device=device)
    times = []
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        for _ in range(12):
            clock = time.perf_counter()
            task(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - clock)
    return statistics.median(times[2:]) * 1e3
