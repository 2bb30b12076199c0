"""What a checkpoint of a task holds, and how one of any version is read; nothing in it is executed."""

import inspect
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from busi_lab.config import MAX_IMAGE_SIZE, OptimConfig, SchedulerConfig
from busi_lab.errors import UserError, one_line
from busi_lab.models import network_settings

SCHEMA = 1
"""Version of what :meth:`BaseTask.on_save_checkpoint` writes; raise it when older checkpoints can no longer be read."""

_GROUPS: Mapping[str, Any] = {"optim": OptimConfig, "scheduler": SchedulerConfig}


def with_defaults(task_class: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a task as a checkpoint holds them, with the defaults of options that came later.

    Args:
        task_class: the task's class, whose constructor has the defaults.
        saved: ``hyper_parameters`` of a checkpoint.

    Raises:
        UserError: the network is not installed here, or lacks a setting.
    """
    parameters = inspect.signature(task_class).parameters.values()
    defaults = {item.name: item.default for item in parameters if item.default is not inspect.Parameter.empty}
    filled = {**defaults, **saved}
    for name, group in _GROUPS.items():
        if isinstance(filled.get(name), Mapping):
            filled[name] = {**asdict(group()), **filled[name]}
    filled["model"] = asdict(network_settings(filled["model"]))
    return filled


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as tensors and plain values alone, on the CPU.

    Raises:
        UserError: the file is missing, damaged, holds more than tensors and plain values, is no checkpoint of a task,
            or has another schema.
    """
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
    if (
        not isinstance(content, dict)
        or not {"schema", "state_dict", "hyper_parameters"} <= content.keys()
        or not isinstance(content["hyper_parameters"], dict)
    ):
        raise UserError(f"{path} is no checkpoint of busi-lab; take the file that busi-train wrote")
    if not isinstance(content["schema"], int) or content["schema"] != SCHEMA:
        raise UserError(
            f"{path} has schema {content['schema']}, this version reads {SCHEMA}; use the busi-lab version that wrote "
            "it"
        )
    size = content["hyper_parameters"].get("image_size")
    if not isinstance(size, int) or not 0 < size <= MAX_IMAGE_SIZE:
        raise UserError(f"{path} has image_size {size!r}, expected pixels, at most {MAX_IMAGE_SIZE}: it is refused")
    return content
