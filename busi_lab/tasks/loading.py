"""A finished run -> its task with the weights of the best epoch; nothing in the run directory is executed."""

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import Summary, read_summary
from busi_lab.tasks.base import BaseTask
from busi_lab.tasks.checkpoint import read_checkpoint, with_defaults


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


def load_task(directory: Path) -> tuple[BaseTask, Summary]:
    """Rebuild the task of a finished run, in evaluation mode on the CPU.

    The checkpoint is read as tensors and plain values alone, and the task's class is one of :func:`task_classes`, so
    that a directory from elsewhere can do no more than give wrong answers.

    Raises:
        UserError: no finished run, an evaluation of one, another schema, an unknown task, or a checkpoint that is
            missing, damaged, holds more than tensors and plain values, or does not fit.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the directory of a finished run")
    summary = read_summary(directory)
    if summary.status != "finished":
        raise UserError(f"{directory}: the run failed ({summary.error}); give the directory of a finished run")
    if summary.task not in (known := task_classes()):
        raise UserError(f"{directory}: task {summary.task!r}, expected {', '.join(known)}")
    if summary.source is not None:
        raise UserError(
            f"{directory} holds the evaluation of a run; give the directory of that run, {summary.source.directory}"
        )
    path = directory / BEST_CHECKPOINT
    content = read_checkpoint(path)
    task_class = known[summary.task]
    try:
        settings = with_defaults(task_class, content["hyper_parameters"])
        task = task_class(**{**settings, "model": {**settings["model"], "weights": "none"}})
        task.load_state_dict(content["state_dict"])
    except (TypeError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} does not fit a {summary.task} task ({one_line(error)[:160]})") from None
    return task.eval(), summary
