"""Golden runs: short runs of everything, and digests of what they leave.

A change that keeps behaviour keeps them byte for byte, on one machine and one set of packages. Call this with the old
code and with the new, and compare the two files::

    python tests/golden/record.py old.json

Bytes differ between processors and versions of torch, which the record therefore names.
"""

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = HERE / "data"
RUNS = HERE / "runs"
RECORD = HERE / "record.json"
CLOCKS = ("seconds", "images_per_second")
NEWER = {
    *("hd95", "hd95_pixels", "hd95_mm"),  # the former, in pixels of the network, became the others
    *("accuracy_without_normal", "auroc_benign_malignant", "precision_present", "recall_present", "f1_present"),
    "near_copy_of",
}
"""Figures and columns that versions do not share; digests leave them out."""
TINY = (
    f"data.root={DATA}",
    *("trainer=cpu", "trainer.max_epochs=4", "model.weights=none", "data.image_size=32", "data.batch_size=4"),
    *("optim=adamw", "optim.lr=1e-3", "logger=csv"),
)
SMOKE = (f"data.root={DATA}", "trainer=smoke", "trainer.accelerator=cpu", "logger=csv")
CLASSIFIER = ("model.backbone=test_efficientnet", "model.dropout=0.3", "scheduler=cosine")
MASKS = ("model=smp", "model.arch=Linknet", "model.encoder=tu-test_efficientnet", "model.in_chans=1")
KINDS = {
    "classification": (*TINY, *CLASSIFIER),
    "segmentation": (*TINY, "task=segmentation", *MASKS, "data.classes=[benign,malignant]", "task.threshold=val"),
    "multitask": (*TINY, "task=multitask", *MASKS, "augment=strong"),
}
"""Runs of a few seconds, one a task; :data:`RUNS` holds a finished and a cut one of each, made by the old code."""


def environment() -> dict[str, Any]:
    """What decides the bytes beside the code: processor, Python and torch."""
    import torch

    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = next(line.split(":")[1].strip() for line in words.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    capability = torch.backends.cpu.get_cpu_capability()
    return {"processor": processor, "capability": capability, "torch": torch.__version__}


def call(module: str, *arguments: str, cwd: Path) -> None:
    """Run ``python -m busi_lab.MODULE`` in a process of its own, on one thread."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "BUSI_LAB_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-m", f"busi_lab.{module}", *arguments]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr[-3000:]}")


def bare(name: str) -> str:
    """A column's name without its split."""
    return name.rpartition("/")[2]


def without_clocks(path: Path) -> str:
    """A table as text, without the columns that hold times and those that versions do not share."""
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        columns = [name for name in table.fieldnames or [] if name not in CLOCKS and bare(name) not in NEWER]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return buffer.getvalue()


def in_seven_digits(path: Path) -> bytes:
    """A table of shared columns with its numbers as older versions wrote them; today's probabilities have nine digits.

    Nine digits name one number of float32, which is what older versions rounded.
    """
    import numpy as np

    def short(column: str, cell: str) -> str:
        if not re.fullmatch(r"-?\d+\.\d+(e[+-]\d+)?|-?\d+e[+-]\d+", cell):
            return cell
        return f"{float(np.float32(cell) if column.startswith('p_') else cell):.7g}"

    with path.open(encoding="utf-8", newline="") as file:
        columns, *lines = csv.reader(file)
    kept = [place for place, name in enumerate(columns) if bare(name) not in NEWER]
    columns, *lines = ([line[place] for place in kept] for line in (columns, *lines))
    table = [columns, *([short(*pair) for pair in zip(columns, line, strict=True)] for line in lines)]
    return "".join(f"{','.join(line)}\n" for line in table).encode()


def digest(*parts: bytes) -> str:
    """Sixteen hex digits over some bytes."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def weights(path: Path) -> str:
    """A digest of names, shapes and values of a checkpoint's tensors."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    items = ((name, value.contiguous()) for name, value in sorted(state.items()))
    return digest(*(f"{name} {list(value.shape)}".encode() + value.numpy().tobytes() for name, value in items))


def describe(run: Path) -> dict[str, str]:
    """Digests of a run's or an evaluation's files; its metrics as text, so that a difference can be read."""
    found = {}
    if (run / "metrics.csv").exists():
        found["metrics"] = without_clocks(run / "metrics.csv")
    for name in ("predictions", "validation", "stress", "shortcuts"):
        if (run / f"{name}.csv").exists():
            found[name] = digest(in_seven_digits(run / f"{name}.csv"))
    found["test"] = json.loads((run / "split.json").read_text(encoding="utf-8"))["digest"]
    masks = sorted((run / "masks").rglob("*.png"))
    if masks:
        found["masks"] = digest(*(part for path in masks for part in (path.name.encode(), path.read_bytes())))
    if (run / "checkpoints/best.ckpt").exists():
        found["weights"] = weights(run / "checkpoints/best.ckpt")
    return found


def experiments() -> list[str]:
    """Names of the shipped experiments but the systems of other papers, which ``tests/test_experiments.py`` trains."""
    folder = HERE.parents[1] / "conf/experiment"
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return [name for name in names if not name.startswith(("published/", "best/", "annotations/"))]


def record(folder: Path, call: Callable[..., None] = call) -> Iterator[tuple[str, dict[str, str]]]:
    """Carry everything out below ``folder``; yields names and digests.

    Args:
        folder: for the runs.
        call: carries out one program, as :func:`call` does.
    """
    for name in experiments():
        run = folder / name.replace("/", "-")
        call("train", f"experiment={name}", *SMOKE, f"hydra.run.dir={run}", cwd=folder)
        yield name, describe(run)
        shutil.rmtree(run)  # VGG16 with its optimiser's state takes gigabytes
    for kind, overrides in KINDS.items():
        run = folder / kind
        call("train", *overrides, f"hydra.run.dir={run}", cwd=folder)
        yield kind, describe(run)
        cut = Path(shutil.copytree(RUNS / f"cut-{kind}", folder / f"resumed-{kind}"))
        call("train", f"resume={cut}", f"data.root={DATA}", f"data.cache_dir={folder / 'cache'}", cwd=folder)
        yield f"resumed {kind}", describe(cut)
        result = folder / f"evaluated-{kind}"
        probes = () if kind == "segmentation" else ("shortcuts=true",)
        extra = ("stress=ultrasound", *probes) if kind != "multitask" else probes
        evaluated = (f"run={RUNS / f'finished-{kind}'}", f"data.root={DATA}", "trainer=cpu", *extra)
        call("evaluate", *evaluated, f"hydra.run.dir={result}", cwd=folder)
        yield f"evaluated {kind}", describe(result)
    call("train", "-m", *KINDS["classification"], "seed=0,1", f"hydra.sweep.dir={folder / 'sweep'}", cwd=folder)
    for seed in (0, 1):
        yield f"sweep seed{seed}", describe(folder / f"sweep/seed{seed}")


def main() -> None:
    """Write the record to the file that is named."""
    with tempfile.TemporaryDirectory() as folder:
        runs = dict(record(Path(folder)))
    content = {"environment": environment(), "runs": runs}
    Path(sys.argv[1]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
