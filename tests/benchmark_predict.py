"""Scans a second and peak memory of busi-predict on 20 and on 2,000 scans, so that growth would show.

Run alone on the machine: ``python -m tests.benchmark_predict RUN... FOLDER``. The folder's scans are repeated as often
as it takes; JSON, masks, overlays and the table are written to a temporary folder.
"""

import itertools
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from busi_lab.inference.batch import predict_files
from busi_lab.inference.scans import ScanFile, list_scans
from busi_lab.predict import load

COUNTS = (20, 2000)


def main(runs: list[str], folder: str) -> None:
    for count in COUNTS:  # peak memory is that of a process
        subprocess.run([sys.executable, "-m", "tests.benchmark_predict", *runs, folder, f"--count={count}"], check=True)


def measure(runs: list[str], folder: str, count: int) -> None:
    found, _ = list_scans([Path(folder)])
    repeated = itertools.islice(itertools.cycle(found), count)
    files = [ScanFile(file.path, f"{number:05d}") for number, file in enumerate(repeated)]
    predictor = load(runs)
    with tempfile.TemporaryDirectory() as out:
        tally = predict_files(predictor, files, Path(out))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(
        f"{tally.scans} scans on {predictor.device}: {tally.scans / tally.seconds:.1f} a second end to end, "
        f"{tally.scans / tally.model_seconds:.1f} inside the models; peak memory {peak:.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    *given, last = sys.argv[1:]
    if last.startswith("--count="):
        measure(given[:-1], given[-1], int(last.removeprefix("--count=")))
    else:
        main(given, last)
