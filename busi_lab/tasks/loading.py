"""A finished run -> its task with the weights of the best epoch; nothing in the run directory is executed."""

import pickle
import warnings
from pathlib import Path

import torch

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import BEST_CHECKPOINT, SCHEMA, Summary, read_summary
from busi_lab.tasks.base import BaseTask
from busi_lab.tasks.classification import ClassificationTask
from busi_lab.tasks.multitask import MultiTask
from busi_lab.tasks.segmentation import SegmentationTask

TASKS: dict[str, type[BaseTask]] = {task.kind: task for task in (ClassificationTask, SegmentationTask, MultiTask)}
"""Task classes by the name that ``summary.json`` gives them."""


def load_task(directory: Path) -> tuple[BaseTask, Summary]:
    """Rebuild the task of a finished run, in evaluation mode on the CPU.

    The checkpoint is read as tensors and plain values alone, and the task's class is one of :data:`TASKS`, so that
    a directory from elsewhere can do no more than give wrong answers.

    Raises:
        UserError: no finished run, an evaluation of one, another schema, an unknown task, or a checkpoint that is
            missing, damaged, holds more than tensors and plain values, or does not fit.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the directory of a finished run")
    summary = read_summary(directory)
    if summary.status != "finished":
        raise UserError(f"{directory}: the run failed ({summary.error}); give the directory of a finished run")
    if summary.task not in TASKS:
        raise UserError(f"{directory}: task {summary.task!r}, expected {', '.join(TASKS)}")
    if summary.source is not None:
        run = summary.source.get("directory")
        raise UserError(f"{directory} holds the evaluation of a run; give the directory of that run, {run}")
    path = directory / BEST_CHECKPOINT
    if not path.is_file():
        raise UserError(f"{path} is missing; copy the whole run directory, its checkpoint included")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors and plain values, or is no checkpoint: it is refused, because reading "
            "it could run code; take the file that busi-train wrote"
        ) from None
    except Exception as error:  # whatever a cut file makes zipfile and torch raise
        raise UserError(f"{path} is damaged ({one_line(error)[:80]}); copy it again") from None
    if not isinstance(content, dict) or not {"schema", "state_dict", "hyper_parameters"} <= content.keys():
        raise UserError(f"{path} is no checkpoint of busi-lab; take the file that busi-train wrote")
    if not isinstance(content["schema"], int) or content["schema"] != SCHEMA:
        raise UserError(
            f"{path} has schema {content['schema']}, this version reads {SCHEMA}; use the busi-lab version that wrote "
            "it"
        )
    try:
        settings = content["hyper_parameters"]
        task = TASKS[summary.task](**{**settings, "model": {**settings["model"], "weights": "none"}})
        task.load_state_dict(content["state_dict"])
    except (TypeError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} does not fit a {summary.task} task ({one_line(error)[:160]})") from None
    return task.eval(), summary
