"""A finished run -> its task with the weights of the best epoch; nothing in the run directory is executed."""

import importlib
import pkgutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from busi_lab.config import MAX_IMAGE_SIZE
from busi_lab.errors import UserError, one_line
from busi_lab.exported.record import check_export
from busi_lab.exported.sessions import Runtime
from busi_lab.extensions import installed, load_extension
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import Summary, read_summary
from busi_lab.tasks.base import BaseTask
from busi_lab.tasks.checkpoint import read_checkpoint, with_defaults

EXTENSIONS = "busi_lab.tasks"
"""Group of entry points by which packages bring tasks, by their ``kind``."""


@cache
def task_classes() -> dict[str, type[BaseTask]]:
    """The task classes of this package by the name that ``summary.json`` gives them: a file in it is all they need."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    found: dict[str, type[BaseTask]] = {}
    waiting = BaseTask.__subclasses__()
    while waiting:
        task = waiting.pop()
        waiting += task.__subclasses__()
        if task.__module__.startswith(f"{__package__}.") and "kind" in vars(task):
            found[task.kind] = task
    return dict(sorted(found.items()))


def find_task(kind: str | None) -> type[BaseTask] | None:
    """A task class by its kind: one of ours, else that of an installed package, which is imported now.

    Raises:
        UserError: its package is broken, or brings something else.
    """
    if kind is None or kind in task_classes():
        return task_classes().get(str(kind))
    found = load_extension(EXTENSIONS, kind)
    if found is not None and not (isinstance(found, type) and issubclass(found, BaseTask)):
        raise UserError(f"{kind}: the entry point of {EXTENSIONS} is no subclass of busi_lab.tasks.BaseTask")
    return found


def load_task(directory: Path, runtime: Runtime = Runtime()) -> tuple[BaseTask, Summary]:  # noqa: B008 # it is frozen
    """Rebuild the task of a finished or an exported run, in evaluation mode on the CPU.

    The checkpoint is read as tensors and plain values alone, and task and network are ours or those of installed
    packages, so that a directory from elsewhere can do no more than give wrong answers.

    Args:
        directory: of the run.
        runtime: how an exported network is applied.

    Raises:
        UserError: no finished run, an evaluation of one, one that predicts nothing, another schema, a task or a network
            that is not installed, a checkpoint that is missing, damaged, holds more than tensors and plain values, or
            does not fit; of an exported run also a file that has changed, or a backend that is missing or does not run
            it.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the directory of a finished run")
    summary = read_summary(directory)
    if summary.status != "finished":
        raise UserError(f"{directory}: the run failed ({summary.error}); give the directory of a finished run")
    if summary.source is not None:
        raise UserError(
            f"{directory} holds the evaluation of a run; give the directory of that run, {summary.source.directory}"
        )
    path, content = _content(directory, summary, runtime)
    brought = content.get("packages") or {}
    task_class = find_task(summary.task)
    if task_class is None:
        known = ", ".join((*task_classes(), *installed(EXTENSIONS)))
        raise UserError(f"{directory}: task {summary.task!r}, expected {known}{_install(brought.get('task'))}")
    if not (task_class.needs_labels or task_class.needs_masks):
        raise UserError(
            f"{directory}: a run of task={summary.task} predicts nothing; it is what others begin with: "
            f"model.weights={directory}"
        )
    try:
        settings = with_defaults(task_class, content["hyper_parameters"])
        task = task_class(**{**settings, "model": {**settings["model"], "weights": "none"}})
        if "state_dict" in content:
            task.load_state_dict(content["state_dict"])
    except UserError as error:
        raise UserError(f"{directory}: {one_line(error)}{_install(brought.get('model'))}") from None
    except (TypeError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} does not fit a {summary.task} task ({one_line(error)[:160]})") from None
    return task.eval(), summary


def _content(directory: Path, summary: Summary, runtime: Runtime) -> tuple[Path, dict[str, Any]]:
    """The file of a run that holds its network, and the settings of its task, with weights where torch applies them."""
    record = summary.export
    if record is None:
        if runtime.backend not in ("auto", "torch") or runtime.precision != "32":
            raise UserError(
                f"backend={runtime.backend}, precision={runtime.precision}: {directory} is a run of torch, in 32 "
                f"bits; busi-export {directory} makes one for other backends"
            )
        return directory / BEST_CHECKPOINT, read_checkpoint(directory / BEST_CHECKPOINT)
    path = check_export(directory, record)
    size = record.task.get("image_size")
    if not isinstance(size, int) or not 0 < size <= MAX_IMAGE_SIZE:
        raise UserError(
            f"{directory} has image_size {size!r}, expected pixels, at most {MAX_IMAGE_SIZE}: it is refused"
        )
    model = {"name": "exported", "file": str(path), "of": str(summary.model), **asdict(runtime)}
    return path, {"hyper_parameters": {**record.task, "model": model}}


def _install(package: str | None) -> str:
    """What to do about something that a package has brought to a run, and that is not there."""
    return f"; install the package {package}, with which the run was made" if package else ""
