"""The network of a task, from gray levels to logits, as an ONNX file or for OpenVINO."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from busi_lab.errors import UserError, one_line
from busi_lab.exported.sessions import require
from busi_lab.models.views import answer_to_views
from busi_lab.tasks import BaseTask


class Graph(nn.Module):
    """What is exported of a task: the scaling, the network, and the mean over views of a scan.

    Args:
        task: in evaluation mode.
        outputs: fields of :class:`Outputs` that it is to give.
    """

    def __init__(self, task: BaseTask, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network = task.network
        self.register_buffer("mean", task.get_buffer("_mean").clone())
        self.register_buffer("std", task.get_buffer("_std").clone())
        self._outputs = tuple(outputs)
        self._views = task.views

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits of scans uint8 ``[N, 1, S, S]``."""
        scaled = (image.float() / 255 - self.mean) / self.std  # type: ignore[operator]
        answers = answer_to_views(self.network, scaled, self._views)
        return tuple(getattr(answers, name).float() for name in self._outputs)


def output_names(task: BaseTask) -> tuple[str, ...]:
    """What a task needs of its network; masks that are made of class activation maps need these."""
    masks = ("masks",) if task.kind != "localization" else ("class_maps",)
    return (*(("classes",) if task.needs_labels else ()), *(masks if task.needs_masks else ()))


def write_onnx(graph: Graph, image_size: int, outputs: Sequence[str], path: Path, what: str) -> None:
    """Write a graph with any number of scans a batch, its weights inside the file.

    Args:
        graph: on the CPU, in evaluation mode.
        image_size: side of the scans, pixels.
        outputs: their names.
        path: of the file.
        what: the run in words, for errors.

    Raises:
        UserError: torch cannot express the network in ONNX, or a library is missing.
    """
    require("onnx")
    require("onnxscript")
    image = torch.zeros(2, 1, image_size, image_size, dtype=torch.uint8)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")  # advice to whoever writes the network
            torch.onnx.export(
                graph,
                (image,),
                str(path),
                input_names=["image"],
                output_names=list(outputs),
                dynamic_shapes={"image": {0: torch.export.Dim("scans")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever capturing, converting or writing raises
        reason = _reason(error)
        raise UserError(
            f"{what}: its network cannot be exported to ONNX ({reason}); use the run itself, or mend the network"
        ) from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost cause in a line; what torch puts around it advises those who write exporters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:200]


def write_openvino(source: Path, path: Path) -> None:
    """Write an ONNX file for OpenVINO, with weights of 32 bits in ``model.bin`` beside it."""
    openvino = require("openvino")
    save_openvino(openvino.Core().read_model(str(source)), path)


def save_openvino(model: Any, path: Path) -> None:
    """Write a model of OpenVINO as it is."""
    require("openvino").save_model(model, str(path), compress_to_fp16=False)
