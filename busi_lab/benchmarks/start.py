"""From the start of ``busi-train`` to its first step, beside the imports that it needs; all caches are warm."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.phantoms import phantoms
from busi_lab.benchmarks.settings import Settings

_IMAGES = 60
_IMPORTS = """
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    try:
        importlib.import_module(name)
    except Exception:
        pass  # a name that is made while a package is imported
"""


class FirstStep(Callback):
    """Notes when the first step is done, and which modules of others have been imported by then.

    Args:
        path: of the file that gets it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it once."""
        if not self._path.exists():
            ours = ("busi_lab", "__main__", "hydra_plugins")
            names = [name for name in sys.modules if name.partition(".")[0] not in (*ours, *sys.stdlib_module_names)]
            self._path.write_text(json.dumps({"time": time.time(), "modules": names}), encoding="utf-8")


def measure(settings: Settings) -> Iterator[Figure]:
    """Seconds of both in turns, and their ratio."""
    root = phantoms(_IMAGES)
    whole, imports = [], []
    for _ in range(settings.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            noted, modules = Path(folder) / "first.json", Path(folder) / "modules.json"
            whole.append(_first_step(root, Path(folder), noted))
            modules.write_text(json.dumps(json.loads(noted.read_text(encoding="utf-8"))["modules"]), encoding="utf-8")
            clock = time.perf_counter()
            subprocess.run([sys.executable, "-c", _IMPORTS, str(modules)], check=True, capture_output=True)
            imports.append(time.perf_counter() - clock)
    ratios = [one / other for one, other in zip(whole, imports, strict=True)]
    yield Figure("start", "busi-train to the end of its first step", "s", tuple(whole[1:]))
    yield Figure("start", "the imports that it needs", "s", tuple(imports[1:]))
    yield Figure("start", "first step / imports", "ratio", tuple(ratios[1:]))


def _first_step(root: Path, folder: Path, noted: Path) -> float:
    """Seconds from the start of a process to the end of its first step."""
    arguments = (
        *(f"data.root={root}", "experiment=paper/mobilenet", "model.weights=none", "split=holdout", "logger=none"),
        *("trainer=cpu", "trainer.max_epochs=1", "data.subset=4", "test=false", f"hydra.run.dir={folder / 'run'}"),
        f"+callbacks.first={{_target_: busi_lab.benchmarks.start.FirstStep, path: '{noted}'}}",
    )
    started = time.time()
    subprocess.run([sys.executable, "-m", "busi_lab.train", *arguments], check=True, capture_output=True)
    return float(json.loads(noted.read_text(encoding="utf-8"))["time"]) - started
