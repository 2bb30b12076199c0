"""``trainer.precision=auto``: bf16-mixed where the processor has it and it is faster, else 32-true.

On a GPU its kind decides, on a CPU the run's own network on one batch. A sweep decides once, by its first job, so that
its runs can be compared; a run that is continued keeps what its ``config.yaml`` says.
"""

import copy
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from busi_lab.errors import UserError
from busi_lab.files import write_json
from busi_lab.run_directory import SWEEP_VARIABLE
from busi_lab.tasks import BaseTask

AUTO = "auto"
FILE = "precision.json"
"""In the directory of a sweep: what its first job has decided."""

_FULL, _MIXED = "32-true", "bf16-mixed"
_WORTH = 0.95  # of the full precision's time, below which the mixed one is worth its rounding
_ROUNDS = 4

log = logging.getLogger(__name__)


def decide_precision(task: BaseTask, batch_size: int, trainer: Mapping[str, Any], directory: Path) -> str:
    """The precision that ``auto`` means for a run; torch's random state stays as it is.

    Args:
        task: of the run, on the CPU.
        batch_size: in training.
        trainer: the group of that name.
        directory: of the run; its parent is that of the sweep, where there is one.

    Raises:
        UserError: several processes on CPUs, each of which would measure for itself.
    """
    shared = directory.parent / FILE if SWEEP_VARIABLE in os.environ else None
    if shared is not None and shared.exists():
        return _read(shared)
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        record: dict[str, Any] = {"precision": _MIXED if torch.cuda.is_bf16_supported(False) else _FULL}
    elif accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        record = {"precision": _FULL}
    else:
        if trainer.get("devices", 1) not in (1, "1", "auto", [0]) or trainer.get("num_nodes", 1) != 1:
            raise UserError(
                f"trainer.precision={AUTO}: is measured by one process, found trainer.devices={trainer['devices']} on "
                f"CPUs; choose {_FULL} or {_MIXED}"
            )
        record = _measure(task, batch_size)
    if shared is not None:
        record["precision"] = _agree(shared, record)
    log.info("precision: %s%s", record["precision"], _told(record))
    return str(record["precision"])


def _measure(task: BaseTask, batch_size: int) -> dict[str, Any]:
    """Milliseconds of a training step in both precisions, measured in turns, and the better one."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return {"precision": _FULL, "reason": "this processor has no bfloat16"}
    with torch.random.fork_rng(devices=[]):
        image = torch.randint(256, (batch_size, 1, task.image_size, task.image_size), dtype=torch.uint8)
        network, scaled = copy.deepcopy(task.network).train(), task.scale(image)
        seconds: dict[str, list[float]] = {_FULL: [], _MIXED: []}
        for _ in range(_ROUNDS):
            for precision, found in seconds.items():
                found.append(_step(network, scaled, precision == _MIXED))
    best = {precision: 1e3 * min(found[1:]) for precision, found in seconds.items()}  # the first ones set up
    chosen = _MIXED if best[_MIXED] < _WORTH * best[_FULL] else _FULL
    return {"precision": chosen, "milliseconds_a_batch": best}


def _step(network: nn.Module, image: torch.Tensor, mixed: bool) -> float:
    """Seconds of a forward and a backward pass."""
    clock = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        outputs = network(image)
        parts = [part for part in (outputs.classes, outputs.masks) if part is not None]
        loss = torch.stack([part.float().square().mean() for part in parts]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return time.perf_counter() - clock


def _agree(shared: Path, record: Mapping[str, Any]) -> str:
    """What the first job of a sweep has decided; of several at once, the first to write."""
    with tempfile.TemporaryDirectory(prefix=".precision.", dir=shared.parent) as folder:
        written = Path(folder) / FILE
        write_json(written, dict(record))
        try:
            os.link(written, shared)  # is refused where it is there
        except FileExistsError:
            return _read(shared)
    return str(record["precision"])


def _read(shared: Path) -> str:
    try:
        found = json.loads(shared.read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found not in (_FULL, _MIXED):
        raise UserError(
            f"{shared}: expected the precision of this sweep, {_FULL} or {_MIXED}; found {found}; remove it"
        )
    return str(found)


def _told(record: Mapping[str, Any]) -> str:
    if "reason" in record:
        return f" ({record['reason']})"
    times = record.get("milliseconds_a_batch", {})
    return f" ({', '.join(f'{name} {value:.0f} ms a batch' for name, value in times.items())})" if times else ""
