"""What a run is made of, from its checked configuration: task, data, callbacks and trainer."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import hydra.utils
import lightning
import timm.optim
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from busi_lab.classes import BUSI, Classes
from busi_lab.config import AugmentConfig, DataConfig, RunConfig, SplitConfig, check_arguments
from busi_lab.data.cache import resolve_cache_dir
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.data.layout import absent_classes, require_layout
from busi_lab.data.layouts import classes_of, find_root
from busi_lab.data.options import DatasetOptions
from busi_lab.errors import UserError, one_line
from busi_lab.models import find_network
from busi_lab.run.checkpoints import AtomicCheckpointIO, BestCheckpoint
from busi_lab.run.made_data import dataset_options, made_root, mixed_root
from busi_lab.suggestions import one_of
from busi_lab.tasks import BaseTask
from busi_lab.tasks.guidance import Guidance

log = logging.getLogger(__name__)

_RESERVED = {
    *("callbacks", "logger", "default_root_dir", "enable_checkpointing", "barebones", "plugins", "fast_dev_run"),
    *("limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval"),
}
_FORKING = tuple(
    f"ddp_{way}{rest}" for way in ("spawn", "fork", "notebook") for rest in ("", "_find_unused_parameters_true")
) + tuple(f"ddp_{way}_find_unused_parameters_false" for way in ("spawn", "fork", "notebook"))
_MOVED = {
    "busi_lab.callbacks.BestCheckpoint": "busi_lab.run.checkpoints.BestCheckpoint",
    "busi_lab.callbacks.LastCheckpoint": "busi_lab.run.checkpoints.LastCheckpoint",
}
"""Callbacks by the names under which older configurations know them."""


def find_classes(data: DataConfig) -> Classes:
    """The classes of the data that a configuration names, of which no scan is read.

    Raises:
        UserError: there is no such dataset, it does not say its classes soundly, or ``data.classes`` names others.
    """
    classes = BUSI
    if data.sources is not None:
        classes = read_classes(mixed_root(data))
    elif data.phantom is None:
        options = dataset_options(data)
        if data.layout == "auto":
            require_layout(data.root, data.name, options)  # a name of the user's own allows both layouts
        classes = classes_of(find_root(data.root, options), options)
    if unknown := [name for name in data.classes or () if name not in classes.names]:
        wrong = f"data.classes={data.classes}: no class {unknown[0]}"
        raise UserError(one_of(wrong, unknown[0], classes.names, "classes"))
    return classes


def find_classes_to_learn(data: DataConfig) -> Classes:
    """The same, of data to train on: each class has a folder, or ``data.classes`` leaves it out.

    Raises:
        UserError: as :func:`find_classes`, or a class has no folder.
    """
    classes, options = find_classes(data), dataset_options(data)
    made = data.phantom is not None or data.sources is not None
    if made or data.classes is not None or data.layout != "auto":
        return classes
    root = find_root(data.root, options)
    if absent := absent_classes(root, options):
        rest = [name for name in classes.names if name not in absent]
        raise UserError(
            f"{root}: no folder of the class {absent[0]}; set data.classes=[{','.join(rest)}] to train without it, add "
            f"the folder, or name the classes in {DATASET}"
        )
    return classes


def build_task(config: RunConfig, classes: Classes) -> BaseTask:
    """The task of a run, checked against the data that it is to learn from.

    Args:
        config: the checked configuration.
        classes: of the data.

    Raises:
        UserError: no task, an argument that it lacks, or one that does not fit the others.
    """
    if not find_network(config.model.name).trained:
        raise UserError(
            f"model.name={config.model.name}: it is not trained, but made of finished runs; see busi-ensemble "
            "and busi-export"
        )
    arguments = dict(config.task)
    target = str(arguments.pop("_target_", ""))
    try:
        task_class = hydra.utils.get_class(target)
    except Exception as error:  # Hydra raises whatever importing the module raised
        raise UserError(f"task._target_={target}: cannot be imported ({one_line(error)})") from None
    if not (isinstance(task_class, type) and issubclass(task_class, BaseTask)):
        raise UserError(f"task._target_={target}: expected a subclass of busi_lab.tasks.BaseTask")
    for item in fields(Guidance):  # see run/teaching.py
        arguments.pop(item.name, None)
    check_arguments("task", task_class, arguments)
    if arguments.get("class_weights") is not None:
        arguments["class_weights"] = _weights(arguments["class_weights"], config.data.classes, classes)
    if classes != BUSI:
        arguments["roles"] = {**asdict(classes), "names": list(classes.names)}
    task = task_class(
        model=config.model.flat(),
        image_size=config.data.image_size,
        optim=asdict(config.optim),
        scheduler=asdict(config.scheduler),
        **arguments,
    )
    if task.needs_labels and config.data.classes is not None and len(config.data.classes) < 2:
        raise UserError(f"data.classes={config.data.classes}: a task with classes needs two of them at least")
    if task.needs_masks and config.data.classes == [classes.without_lesion]:
        raise UserError(
            f"data.classes=[{classes.without_lesion}]: a task with masks needs lesions; add "
            f"{' or '.join(classes.lesions)}"
        )
    names = [f"val/{name}" for name in ("loss", *task.metric_names)]
    if task.monitor not in names:
        raise UserError(f"task.monitor={task.monitor}: expected one of {', '.join(names)}")
    if config.optim.name not in timm.optim.list_optimizers():
        raise UserError(f"optim.name={config.optim.name}: not an optimiser of timm, such as adam, adamw, sgd, lion")
    return task


def _weights(weights: Sequence[float], chosen: Sequence[str] | None, classes: Classes) -> list[float]:
    """A factor for each class; those of ``data.classes`` alone may be given, in their order."""
    if chosen is not None and len(weights) == len(chosen) < len(classes):
        given = dict(zip(chosen, weights, strict=True))
        return [given.get(name, 1.0) for name in classes.names]
    if len(weights) != len(classes):
        raise UserError(
            f"task.class_weights={list(weights)}: expected null or a factor above 0 for each class, in the order "
            f"{', '.join(classes.names)}"
        )
    return list(weights)


def build_data(
    data_config: DataConfig,
    split: SplitConfig,
    task: BaseTask,
    augment: AugmentConfig | None = None,
    seed: int = 0,
    either: bool = False,
) -> BusiDataModule:
    """The datamodule of a task, set up; phantoms are made where they are not there yet.

    With ``either``, a task of labels and masks takes data that have one of both alone.
    """
    find_classes(data_config)  # refuses another layout, and classes that there are not
    settings = asdict(data_config)
    for key in ("name", "roi", "roi_mode", "roi_margin"):  # data.roi is cut when the data are there
        settings.pop(key)
    for key in ("phantom", "sources", "copies_before_split"):
        settings.pop(key)
    del settings["labels"], settings["label_map"], settings["lesion_values"], settings["layout"]
    folder = resolve_cache_dir(settings["cache_dir"])
    settings["cache_dir"] = None if folder is None else str(folder)
    options = dataset_options(data_config)
    if (made := made_root(data_config)) is not None:
        settings["root"], options = str(made), options if data_config.phantom is not None else DatasetOptions()
    if not task.needs_labels and not task.needs_masks:
        if data_config.annotated < 1:
            raise UserError(
                f"data.annotated={data_config.annotated} beside task={task.kind}: it needs no annotation and learns "
                "from all training scans; leave data.annotated out"
            )
        settings["balanced_sampling"] = False  # that would draw by labels
    data = BusiDataModule(
        **settings,
        split=asdict(split),
        augment=asdict(augment) if augment else None,
        roles=task.roles if task.needs_labels else None,
        labels=task.needs_labels,
        masks=task.needs_masks,
        either=either,
        original_masks=task.original_masks,
        options=options,
        unlabelled=task.wanted_unlabelled,
        two_views=task.two_views,
        seed=seed,
    )
    data.setup()
    return data


def build_callbacks(config: RunConfig, task: BaseTask) -> list[Callback]:
    """The callbacks that the configuration names.

    Raises:
        UserError: one watches a metric that the task does not have, or none keeps the best epoch.
    """
    names = [f"val/{name}" for name in ("loss", *task.metric_names)]
    for name, item in config.callbacks.items():
        if item and not item.get("_target_"):
            raise UserError(
                f"callbacks.{name}: names no class (_target_); choose the callbacks= that has it, or set "
                f"callbacks.{name}=null"
            )
        if item and item.get("monitor", task.monitor) not in names:
            raise UserError(f"callbacks.{name}.monitor={item['monitor']}: expected one of {', '.join(names)}")
    callbacks = [
        hydra.utils.instantiate({**item, "_target_": _MOVED.get(str(item.get("_target_")), item.get("_target_"))})
        for item in config.callbacks.values()
        if item
    ]
    if not any(isinstance(item, BestCheckpoint) for item in callbacks):
        raise UserError("callbacks.best: expected a BestCheckpoint, whose weights are tested")
    return callbacks


def trainer_settings(group: dict[str, Any]) -> dict[str, Any]:
    """Check the trainer group against Lightning and against this machine."""
    check_arguments("trainer", Trainer.__init__, group)
    if reserved := _RESERVED & group.keys():
        raise UserError(
            f"trainer.{min(reserved)}: every run validates and tests each epoch's best as a whole and writes its own "
            "record; use the groups callbacks and logger, hydra.run.dir, data.subset or trainer=smoke"
        )
    if (strategy := str(group.get("strategy"))) in _FORKING:
        raise UserError(f"trainer.strategy={strategy}: its processes keep what they have learnt to themselves; use ddp")
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
            logger=False,  # trackers are told of epochs and results by us
            plugins=[AtomicCheckpointIO()],
            default_root_dir=directory,
        )
    except (ValueError, TypeError, lightning.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"trainer: {one_line(error)}") from None
