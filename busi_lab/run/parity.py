"""The gate of an export: a fresh process reads the written files, and must answer as torch does.

Exporters have written graphs that are silently wrong, so the gate always runs.
"""

import copy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from busi_lab.errors import UserError
from busi_lab.models.views import answer_to_views
from busi_lab.tasks import BaseTask

TOLERANCE = 1e-4
"""Largest difference of a logit that is allowed, in units of ``max(1, |logit|)``."""

ROUNDING = 2.0
"""Where it is larger: at most so many times what torch's own 32 bits differ from its 64 bits on the same scans.

Deep networks with batch norm (InceptionV3) amplify the rounding of any library beyond :data:`TOLERANCE`.
"""

_AT_ONCE = 16

Scans = NDArray[np.uint8]
Logits = Mapping[str, NDArray[np.floating[Any]]]


class GateError(UserError):
    """What was written answers otherwise than the run, so that it was not kept."""


@torch.inference_mode()
def torch_logits(task: BaseTask, scans: Scans, outputs: Sequence[str]) -> Logits:
    """Logits by name of scans uint8 ``[N, 1, S, S]``, by the run itself."""
    parts = [
        answer_to_views(task.network, task.scale(torch.from_numpy(scans[start : start + _AT_ONCE])), task.views)
        for start in range(0, len(scans), _AT_ONCE)
    ]
    return {name: torch.cat([getattr(part, name).float() for part in parts]).numpy() for name in outputs}


def written_logits(model: Path, scans: Scans, outputs: Sequence[str]) -> Logits:
    """The same by the written files, in a process of their own.

    Raises:
        GateError: they cannot be applied.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scans.npy"
        np.save(path, scans)
        program = [sys.executable, "-m", "busi_lab.exported.answers", str(model), str(path), folder]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise GateError(f"the written {model.name} cannot be applied ({told[:200]}); nothing was kept")
        return {name: np.load(Path(folder) / f"{name}.npy") for name in outputs}


def check_parity(task: BaseTask, scans: Scans, outputs: Sequence[str], model: Path) -> float:
    """The largest difference of a logit between run and file, in units of ``max(1, |logit|)``.

    Raises:
        GateError: it is larger than :data:`TOLERANCE` and :data:`ROUNDING` allow, or no number.
    """
    expected = torch_logits(task, scans, outputs)
    found = written_logits(model, scans, outputs)
    difference = largest_difference(expected, found)
    if difference <= TOLERANCE:
        return difference
    allowed = max(TOLERANCE, ROUNDING * largest_difference(_exact_logits(task, scans, outputs), expected))
    if not difference <= allowed:
        raise GateError(
            f"parity: logits of the written file differ from the run's by {difference:.2g} x max(1, |logit|), expected "
            f"at most {allowed:.2g}; nothing was kept: try the other --to, or use the run itself"
        )
    return difference


def largest_difference(expected: Logits, found: Logits) -> float:
    """The largest difference in units of ``max(1, |expected|)``; NaN where there is one."""
    each = [(np.abs(found[name] - logits) / np.maximum(1, np.abs(logits))).max() for name, logits in expected.items()]
    return float(np.max(each))


@torch.inference_mode()
def _exact_logits(task: BaseTask, scans: Scans, outputs: Sequence[str]) -> Logits:
    """Logits by the run itself in 64 bits."""
    network = copy.deepcopy(task.network).double()
    mean, std = (task.get_buffer(name).double() for name in ("_mean", "_std"))
    batches = (scans[start : start + _AT_ONCE] for start in range(0, len(scans), _AT_ONCE))
    scaled = ((torch.from_numpy(batch).double() / 255 - mean) / std for batch in batches)
    parts = [answer_to_views(network, each, task.views) for each in scaled]
    return {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in outputs}
