"""One run from a checked configuration to a run directory: fit, validate the best epoch, test it once."""

import contextlib
import hashlib
import json
import logging
import platform
import shlex
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import hydra.utils
import lightning
import timm.optim
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from busi_lab.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    EpochRecord,
    EpochSeed,
    Interrupted,
    LastCheckpoint,
    MaskPanel,
    StopRequest,
)
from busi_lab.config import AugmentConfig, DataConfig, RunConfig, SplitConfig, check_arguments
from busi_lab.data.cache import resolve_cache_dir
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.layout import require_layout
from busi_lab.data.phantom import generate_phantoms
from busi_lab.data.splits import Manifest, write_manifest
from busi_lab.errors import UserError, one_line
from busi_lab.models.segmenters import STRIDE
from busi_lab.run_directory import (
    BEST_CHECKPOINT,
    CLASSES,
    CONFIG,
    LAST_CHECKPOINT,
    MASKS,
    METRICS,
    PREDICTIONS,
    PREVIOUS_CHECKPOINT,
    SCHEMA,
    SPLIT,
    VALIDATION,
    Summary,
    add_further,
    locked,
    median_speed,
    quoted,
    read_rows,
    write_atomically,
    write_masks,
    write_rows,
    write_summary,
)
from busi_lab.tasks import BaseTask, MaskTask, SegmentationTask
from busi_lab.tracking import Job, Result, Trackers, open_trackers

log = logging.getLogger(__name__)

_RESERVED = {
    *("callbacks", "logger", "default_root_dir", "enable_checkpointing", "barebones", "plugins", "fast_dev_run"),
    *("limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval"),
}
_NOTHING_TO_TRAIN_ON = "split=all tests everything and leaves nothing to train on; it is for busi-eval"
_VERSIONS = ("busi-lab", "torch", "lightning", "timm", "torchmetrics", "albumentations", "numpy")


class State(NamedTuple):
    """Where a run was cut: its checkpoint, and whether nothing was left to fit."""

    checkpoint: Path
    fit_finished: bool


class Predicted(NamedTuple):
    """Rows of ``predictions.csv`` and ``validation.csv``, and the test masks by case id."""

    test: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    masks: dict[str, Any]


def run_experiment(config: RunConfig, resolved: Any) -> Summary:
    """Carry out one run, or continue one, and write its directory.

    Everything that can be wrong with the input is found before the run directory is written to. A run that
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
    if config.split.protocol == "all" and not config.split.manifest:
        raise UserError(_NOTHING_TO_TRAIN_ON)
    quieten()
    settings = trainer_settings(config.trainer)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    task = _build_task(config)
    data = build_data(config.data, config.split, task, config.augment, config.seed)
    if data.full_manifest.protocol == "all":
        raise UserError(f"split.manifest={config.split.manifest}: {_NOTHING_TO_TRAIN_ON}")
    callbacks = _build_callbacks(config, task)
    state = _find_state(directory, task, data, config.trainer["max_epochs"]) if config.resume else None
    record = EpochRecord(directory)
    trainer = build_trainer(settings, [EpochSeed(config.seed), record, *callbacks], directory)
    summary = _start_summary(config, data, task, trainer)
    if not trainer.is_global_zero:
        _fit_and_test(task, data, trainer, state, summary)
        return summary
    log.info(_headline(config, summary))
    log.info(leak_line(summary))
    stop = next((item.stop for item in callbacks if isinstance(item, LastCheckpoint)), StopRequest())
    trackers = Trackers({})
    with locked(directory), stop.watch():
        try:
            name = f"{summary.experiment}-seed{summary.seed}"
            trackers = open_trackers(config.logger, Job(directory, name, "train", OmegaConf.to_container(resolved)))  # type: ignore[arg-type]
            summary.wandb = trackers.record.get("wandb")
            trackers.start(summary, task.monitor, task.monitor_mode, task.metric_names)
            record.publish = trackers.epoch
            if isinstance(task, MaskTask):
                _show_masks(trainer, data, trackers)
            write_inputs(directory, resolved, data)
            predicted = _fit_and_test(task, data, trainer, state, summary)
            for name, rows in ((VALIDATION, predicted.validation), (PREDICTIONS, predicted.test)):
                write_rows(directory / name, rows, rows[0])
            write_masks(directory / MASKS, predicted.masks)
            summary.status = "finished"
            if trackers:
                scans = (data.pictures(), data.true_masks(), predicted.masks)
                trackers.result(Result(summary, predicted.test, *scans))
        except Interrupted:
            log.info("stopped; continue with: busi-train %s", shlex.quote(f"resume={quoted(directory)}"))
            raise
        except BaseException as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            summary.status, summary.error = "failed", f"{kind}{one_line(error)}"
            raise
        finally:
            if summary.status == "finished" or summary.error:
                summary.seconds["total"] = time.perf_counter() - started
                with contextlib.suppress(OSError):  # a full disk must not hide the first error
                    write_summary(directory, summary)
            trackers.finish(failed=summary.status != "finished")
    log.info(_result(summary, directory))
    return summary


def _find_state(directory: Path, task: BaseTask, data: BusiDataModule, max_epochs: int) -> State:
    """The newest whole checkpoint of a run that is to be continued.

    Raises:
        UserError: there is none, it belongs to another model, split or version, or it is beyond ``max_epochs``.
    """
    reasons = []
    for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        path = directory / name
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            saved, split = content["hyper_parameters"], content["BusiDataModule"]["split"]
            fit_finished = bool(content["callbacks"]["LastCheckpoint"]["fit_finished"])
        except Exception as error:  # whatever a cut or foreign file makes zipfile and pickle raise
            reasons.append(f"{name} is damaged")
            log.info("%s cannot be read (%s); trying the one before", path, one_line(error)[:80])
            continue
        if content.get("schema") != SCHEMA:
            raise UserError(f"resume={directory}: {name} has schema {content.get('schema')}, this version {SCHEMA}")
        built = {**dict(task.hparams), "model": {**task.hparams["model"], "weights": "none"}}
        if differing := [key for key in built if saved.get(key) != built[key]]:
            raise UserError(f"resume={directory}: {name} belongs to another {differing[0]}; use the run's own config")
        if split != data.manifest.digest:
            raise UserError(f"resume={directory}: {name} belongs to split {split}, found {data.manifest.digest}")
        if not fit_finished and content["epoch"] >= max_epochs:
            raise UserError(
                f"trainer.max_epochs={max_epochs}: {directory} is in epoch {content['epoch'] + 1} already; expected at "
                "least that many, or leave it out"
            )
        return State(path, fit_finished)
    raise UserError(
        f"resume={directory}: no whole checkpoint to continue from ({', '.join(reasons) or 'none is there'}); "
        "start the run again in a new directory"
    )


def _show_masks(trainer: Trainer, data: BusiDataModule, trackers: Trackers) -> None:
    """Send the masks of some validation scans, the same ones every time, every few epochs."""
    for scans, every, publish in trackers.mask_panels:
        count = min(scans, len(data.val_set))
        chosen = [data.val_set[round(i * (len(data.val_set) - 1) / max(1, count - 1))] for i in range(count)]
        if chosen:
            trainer.callbacks.insert(0, MaskPanel(chosen, every, publish))  # type: ignore[attr-defined]


def quieten() -> None:
    """Silence advice that does not fit cached scans, and Lightning's own banner."""
    for pattern in (
        "does not have many workers",
        "smaller than the logging interval",
        "LeafSpec",
        "Checkpoint directory .* exists and is not empty",
        "in eval mode at the start of training",  # a frozen backbone is meant to be
        "resuming from a checkpoint that ended before the epoch",  # the sampler skips what is done
    ):
        warnings.filterwarnings("ignore", f".*{pattern}.*")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "timm"):
        logging.getLogger(name).setLevel(logging.WARNING)


def trainer_settings(group: dict[str, Any]) -> dict[str, Any]:
    """Check the trainer group against Lightning and against this machine."""
    check_arguments("trainer", Trainer.__init__, group)
    if reserved := _RESERVED & group.keys():
        raise UserError(
            f"trainer.{min(reserved)}: every run validates and tests each epoch's best as a whole and writes its own "
            "record; use the groups callbacks and logger, hydra.run.dir, data.subset or trainer=smoke"
        )
    if group.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu: no CUDA device is visible here; use trainer=auto or trainer=cpu")
    return dict(group)


def build_trainer(settings: dict[str, Any], callbacks: list[Callback], directory: Path) -> Trainer:
    """Lightning's Trainer with our defaults, writing into ``directory``."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    defaults: dict[str, Any] = {
        "enable_model_summary": False,
        "enable_progress_bar": sys.stderr.isatty(),
        "use_distributed_sampler": False,  # the datamodule shares its scans out itself
        "num_sanity_val_steps": 0,
    }
    try:
        return Trainer(
            **{**defaults, **settings},
            callbacks=callbacks,
            logger=False,  # trackers are told by us
            plugins=[AtomicCheckpointIO()],
            default_root_dir=directory,
        )
    except (ValueError, TypeError, lightning.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"trainer: {one_line(error)}") from None


def _build_task(config: RunConfig) -> BaseTask:
    arguments = dict(config.task)
    target = str(arguments.pop("_target_", ""))
    try:
        task_class = hydra.utils.get_class(target)
    except Exception as error:  # Hydra raises whatever importing the module raised
        raise UserError(f"task._target_={target}: cannot be imported ({one_line(error)})") from None
    check_arguments("task", task_class, arguments)
    task = task_class(
        model=asdict(config.model),
        image_size=config.data.image_size,
        optim=asdict(config.optim),
        scheduler=asdict(config.scheduler),
        **arguments,
    )
    if not isinstance(task, BaseTask):
        raise UserError(f"task._target_={target}: expected a subclass of busi_lab.tasks.BaseTask")
    if not isinstance(task, SegmentationTask) and config.data.classes is not None and len(config.data.classes) < 2:
        raise UserError(f"data.classes={config.data.classes}: a task with classes needs two or three")
    if isinstance(task, MaskTask) and config.data.classes == ["normal"]:
        raise UserError("data.classes=[normal]: a task with masks needs lesions; add benign or malignant")
    names = [f"val/{name}" for name in ("loss", *task.metric_names)]
    if task.monitor not in names:
        raise UserError(f"task.monitor={task.monitor}: expected one of {', '.join(names)}")
    if config.optim.name not in timm.optim.list_optimizers():
        raise UserError(f"optim.name={config.optim.name}: not an optimiser of timm, such as adam, adamw, sgd, lion")
    return task


def build_data(
    data_config: DataConfig,
    split: SplitConfig,
    task: BaseTask,
    augment: AugmentConfig | None = None,
    seed: int = 0,
) -> BusiDataModule:
    """The datamodule of a task, set up; phantoms are made where they are not there yet."""
    settings = asdict(data_config)
    name, phantom = settings.pop("name"), settings.pop("phantom")
    folder = resolve_cache_dir(settings["cache_dir"])
    settings["cache_dir"] = None if folder is None else str(folder)
    if name == "phantom":
        settings["root"] = str(_phantom_root(folder, phantom or {}))
    else:
        require_layout(settings["root"], name)
    data = BusiDataModule(
        **settings,
        split=asdict(split),
        augment=asdict(augment) if augment else None,
        labels=not isinstance(task, SegmentationTask),
        masks=isinstance(task, MaskTask),
        original_masks=isinstance(task, MaskTask) and task.masks.original,
        seed=seed,
    )
    data.setup()
    return data


def _phantom_root(cache_dir: Path | None, settings: dict[str, Any]) -> Path:
    """The folder of the wanted phantoms, made if it is not there yet."""
    if cache_dir is None:
        raise UserError("data=phantom needs data.cache_dir, the folder to make the phantoms in; found null")
    check_arguments("data.phantom", generate_phantoms, settings)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    root = cache_dir / f"phantoms-{key}"
    if not root.is_dir():
        log.info("making phantoms in %s", root)
        try:
            generate_phantoms(root, **settings)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"data.phantom={settings}: {one_line(error)}; see conf/data/phantom.yaml") from None
        except (OSError, UserError) as error:
            if not root.is_dir():  # else another job was faster, with the same phantoms
                raise UserError(f"data.cache_dir={cache_dir}: phantoms cannot be made: {one_line(error)}") from None
    return root


def _build_callbacks(config: RunConfig, task: BaseTask) -> list[Callback]:
    names = [f"val/{name}" for name in ("loss", *task.metric_names)]
    for name, item in config.callbacks.items():
        if item and item.get("monitor", task.monitor) not in names:
            raise UserError(f"callbacks.{name}.monitor={item['monitor']}: expected one of {', '.join(names)}")
    callbacks = [hydra.utils.instantiate(item) for item in config.callbacks.values() if item]
    if not any(isinstance(item, BestCheckpoint) for item in callbacks):
        raise UserError("callbacks.best: expected a BestCheckpoint, whose weights are tested")
    return callbacks


def _start_summary(config: RunConfig, data: BusiDataModule, task: BaseTask, trainer: Trainer) -> Summary:
    manifest = data.manifest
    assert data.cache is not None
    return Summary(
        status="failed",
        task=task.kind,
        experiment=config.name or config.model_label,
        model=config.model_label,
        weights=config.model.weights,
        seed=config.seed,
        split=split_record(manifest, data.leaked()),
        data={
            "name": config.data.name,
            "root": str(data.cache.index.root.resolve()),
            "digest": data.cache.index.digest,
            "train": len(manifest.train),
            "val": len(manifest.val),
            "test": len(manifest.test),
            "classes": [name for name in CLASSES if config.data.classes is None or name in config.data.classes],
        },
        parameters=sum(parameter.numel() for parameter in task.network.parameters()),
        objective={"metric": task.monitor, "mode": task.monitor_mode},
        device=torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu",
        precision=str(trainer.precision),
        command=config.command,
        **environment_record(),
    )


def split_record(manifest: Manifest, leaked: int | None) -> dict[str, Any]:
    """What ``summary.json`` says of a split."""
    return {
        "protocol": manifest.protocol,
        "seed": manifest.seed,
        "fold": manifest.fold,
        "digest": manifest.digest,
        "test_digest": manifest.test_digest,
        "leaked": leaked,
    }


def environment_record() -> dict[str, Any]:
    """Fields of a summary that say which code ran."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}
    return {"versions": versions, "git": _git_commit()}


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with ``-dirty`` after changes; None elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def write_inputs(directory: Path, resolved: Any, data: BusiDataModule) -> None:
    """Write the configuration and the split.

    Raises:
        UserError: the directory cannot be written to.
    """
    try:
        write_atomically(directory / CONFIG, OmegaConf.to_yaml(resolved))
        write_manifest(directory / SPLIT, data.full_manifest)
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written to ({error.strerror}); set hydra.run.dir to a writable folder"
        ) from None


def _fit_and_test(
    task: BaseTask, data: BusiDataModule, trainer: Trainer, state: State | None, summary: Summary
) -> Predicted:
    """Fit, then judge the best epoch on validation and, once, on test; every rank gathers what all predicted."""
    directory = Path(trainer.default_root_dir)
    if state is None:
        trainer.fit(task, datamodule=data)
    elif not state.fit_finished:
        trainer.fit(task, datamodule=data, ckpt_path=state.checkpoint, weights_only=True)
    epochs = read_rows(directory / METRICS)
    summary.epochs = len(epochs)
    summary.images_per_second = median_speed(epochs)
    summary.seconds["fit"] = sum(float(row["seconds"]) for row in epochs)
    best = torch.load(directory / BEST_CHECKPOINT, map_location="cpu", weights_only=True)
    summary.best_epoch = best["epoch"]
    task.load_state_dict(best["state_dict"])
    clock = time.perf_counter()
    for split, judge in (("val", trainer.validate), ("test", trainer.test)):
        judge(task, datamodule=data, verbose=False)
        summary.metrics.update(plain_metrics(task.results[split], split))
    summary.seconds["test"] = time.perf_counter() - clock
    summary.inference_milliseconds = _time_inference(task, trainer)
    test, validation = (with_columns(task.predictions(split), data) for split in ("test", "val"))
    return Predicted(test, validation, task.predicted_masks())


def with_columns(rows: list[dict[str, Any]], data: BusiDataModule) -> list[dict[str, Any]]:
    """Rows of predictions with the group of each image behind its label, and further columns at the end."""
    return [
        add_further(
            {"image": row["image"], "label": row["label"], "group": data.group(row["image"]), **row},
            data.further(row["image"]),
        )
        for row in rows
    ]


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


def plain_metrics(values: dict[str, torch.Tensor], split: str) -> dict[str, Any]:
    """Metric tensors as numbers and lists, a confusion matrix for the test alone."""
    return {
        f"{split}/{name}": value.item() if value.numel() == 1 else value.tolist()
        for name, value in values.items()
        if value.numel() == 1 or split == "test"
    }


def _headline(config: RunConfig, summary: Summary) -> str:
    data, split = summary.data, summary.split
    size = config.data.image_size
    padded = (
        f" (padded to {size + -size % STRIDE} by its edges)"
        if summary.task != "classification" and size % STRIDE
        else ""
    )
    return (
        f"{summary.experiment}: {summary.model}, weights {summary.weights}, {summary.parameters or 0:,} parameters, "
        f"seed {summary.seed}; {data['name']} at {size} px{padded}, "
        f"split {split['protocol']} {split['digest']}: "
        f"{data['train']} train, {data['val']} val, {data['test']} test; {summary.device}, {summary.precision}"
    )


def leak_line(summary: Summary) -> str:
    """How far the test images are known to the model, in a line."""
    leaked, tested = summary.split["leaked"], summary.data["test"]
    share = f"{leaked} of {tested} test images ({leaked / tested:.0%})"
    advice = "; split=grouped_holdout keeps them apart" if leaked and not summary.source else ""
    across = (summary.source or {}).get("data_digest") not in (None, summary.data["digest"])
    kin = "a near-copy (patients of two datasets are not compared)" if across else "a near-copy or the same patient"
    return f"leaks: {share} have {kin} in training or validation{advice}"


def _result(summary: Summary, directory: Path) -> str:
    shown = [f"{key} {value:.4f}" for key, value in summary.metrics.items() if isinstance(value, float)]
    kept = [text for text in shown if text.split("/")[1].split()[0] in ("accuracy", "f1", "auroc", "dice", "iou")]
    speed = f"{summary.images_per_second:.0f} images/s" if summary.images_per_second else ""
    return f"best epoch {summary.best_epoch} (from 0): {'  '.join(kept)}  {speed}\nrun directory: {directory}"
