"""Where a run happens: which code, which device; and the advice of libraries that does not fit."""

import logging
import platform
import subprocess
import sys
import warnings
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

_VERSIONS = ("busi-lab", "torch", "lightning", "timm", "torchmetrics", "albumentations", "numpy")


def quieten() -> None:
    """Silence advice that does not fit cached scans, and Lightning's own banner."""
    for pattern in (
        "does not have many workers",
        "smaller than the logging interval",
        "LeafSpec",
        "`srun` command is available",  # Lightning starts the processes of several GPUs itself
        "Checkpoint directory .* exists and is not empty",
        "in eval mode at the start of training",  # a frozen backbone is meant to be
        "recommended to use `self.log.*sync_dist=True`",  # every rank computes the value over all of them
        "resuming from a checkpoint that ended before the epoch",  # the sampler skips what is done
    ):
        warnings.filterwarnings("ignore", f".*{pattern}.*")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "timm"):
        logging.getLogger(name).setLevel(logging.WARNING)


def device_name(trainer: Trainer) -> str:
    """The device that a trainer computes on, as ``summary.json`` names it."""
    return torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu"


def peak_memory() -> dict[str, int | None]:
    """Fields of a summary that say how much memory this process has held at most, in bytes."""
    try:
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        resident: int | None = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:
        resident = None
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"peak_memory_bytes": resident, "peak_gpu_memory_bytes": on_gpu}


def forget_peak_memory() -> None:
    """Let the peak on the GPU be that of the run that begins, where one process carries out several."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def environment_record() -> dict[str, Any]:
    """Fields of a summary that say which code ran."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}
    return {"versions": versions, "git": _git_commit()}


@cache
def installed_packages() -> str:
    """Every installed package with its version, a line each, as ``pip install --requirement`` reads them."""
    found = {str(item.name).lower(): f"{item.name}=={item.version}" for item in distributions() if item.name}
    lines = [f"# Python {platform.python_version()}, {platform.platform()}", *(found[name] for name in sorted(found))]
    return "\n".join(lines) + "\n"


@cache
def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with ``-dirty`` after changes; None elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
