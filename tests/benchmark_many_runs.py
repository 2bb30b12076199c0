"""Comparing very many runs: a finished run, copied with other seeds or names and figures, then compared and listed.

Run alone on the machine: ``python -m tests.benchmark_many_runs RUN NEW_FOLDER [COUNT]``. 10,000 runs are to take less
than 2 minutes and 2 GB for each command.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from busi_lab.run_directory import CONFIG, METRICS, PREDICTIONS, SPLIT, VALIDATION
from busi_lab.summary import SUMMARY
from busi_lab.sweep.record import JobRecord, SweepRecord, write_sweep


def multiply(run: Path, folder: Path, count: int, experiments: bool) -> None:
    """Copies as ``count`` seeds of one experiment, or as experiments of one run each."""
    chance = random.Random(0)
    jobs = []
    for number in range(count):
        copy = folder / f"job{number}"
        copy.mkdir(parents=True)
        for name in (CONFIG, METRICS, PREDICTIONS, SPLIT, VALIDATION):
            shutil.copy(run / name, copy)
        summary = json.loads((run / SUMMARY).read_text())
        summary |= {"experiment": f"tiny{number}"} if experiments else {"experiment": "tiny", "seed": number}
        known = {name: value for name, value in summary["metrics"].items() if isinstance(value, float)}
        summary["metrics"] |= {name: abs(value + chance.uniform(-0.1, 0.1)) for name, value in known.items()}
        (copy / SUMMARY).write_text(json.dumps(summary))
        jobs.append(JobRecord(copy.name, (), ()))
    write_sweep(folder, SweepRecord(1, {}, tuple(jobs)))


def main(run: Path, folder: Path, count: int) -> None:
    for kind in ("seeds", "experiments"):
        multiply(run, folder / kind, count, kind == "experiments")
        for program in ("busi_lab.status", "busi_lab.compare"):
            started = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-m", program, str(folder / kind)], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds, memory = time.perf_counter() - started, used.ru_maxrss / 2**20
            print(f"{count} {kind}, {program}: {seconds:.0f} s, {memory:.2f} GB, exit code {process.returncode}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 10_000)
