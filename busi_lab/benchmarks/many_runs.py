"""Comparing and listing very many runs: one that is trained in seconds, copied with other names and figures."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.phantoms import phantoms
from busi_lab.benchmarks.settings import Settings
from busi_lab.run_directory import CONFIG, METRICS, PREDICTIONS, SPLIT, VALIDATION
from busi_lab.summary import SUMMARY
from busi_lab.sweep.record import JobRecord, SweepRecord, write_sweep

_IMAGES = 60


def measure(settings: Settings) -> Iterator[Figure]:
    """Seconds and gigabytes of ``busi-sweep`` and ``busi-compare``, for seeds of one experiment and for experiments."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = _train(folder / "run")
        for kind in ("seeds", "experiments"):
            _multiply(run, folder / kind, settings.many, kind == "experiments")
            for program in ("status", "compare"):
                seconds, memory = _carry_out(f"busi_lab.{program}", folder / kind)
                what = f"{'busi-sweep' if program == 'status' else 'busi-compare'}, {settings.many:,} {kind}"
                yield Figure("compare", what, "s", (seconds,))
                yield Figure("compare", f"{what}: peak memory", "GB", (memory,))


def _train(directory: Path) -> Path:
    arguments = (f"data.root={phantoms(_IMAGES)}", "trainer=smoke", "model=custom_cnn", "logger=none", "name=tiny")
    command = [sys.executable, "-m", "busi_lab.train", *arguments, f"hydra.run.dir={directory}"]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def _multiply(run: Path, folder: Path, count: int, experiments: bool) -> None:
    """Copies as ``count`` seeds of one experiment, or as experiments of one run each."""
    chance = random.Random(0)
    jobs = []
    for number in range(count):
        copy = folder / f"job{number}"
        copy.mkdir(parents=True)
        for name in (CONFIG, METRICS, PREDICTIONS, SPLIT, VALIDATION):
            shutil.copy(run / name, copy)
        summary = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
        summary |= {"experiment": f"tiny{number}"} if experiments else {"seed": number}
        known = {name: value for name, value in summary["metrics"].items() if isinstance(value, float)}
        summary["metrics"] |= {name: abs(value + chance.uniform(-0.1, 0.1)) for name, value in known.items()}
        (copy / SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
        jobs.append(JobRecord(copy.name, (), ()))
    write_sweep(folder, SweepRecord(1, {}, tuple(jobs)))


def _carry_out(program: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak gigabytes of a program on a folder of runs."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", program, str(folder)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{program} ended with exit code {process.returncode}")
    return time.perf_counter() - started, used.ru_maxrss / 2**20
