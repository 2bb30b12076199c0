"""Runs applied to scans: the network alone on one scan, and ``busi-predict`` with everything that it writes."""

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from busi_lab.bench_record import Figure
from busi_lab.benchmarks.phantoms import phantoms
from busi_lab.benchmarks.settings import Settings
from busi_lab.classes import BUSI
from busi_lab.config import config_dir, parse_config
from busi_lab.inference.batch import predict_files
from busi_lab.inference.scans import ScanFile, list_scans
from busi_lab.predict import load
from busi_lab.run.build import build_task
from busi_lab.run.checkpoints import AtomicCheckpointIO
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import Summary, read_summary, write_summary

_UNTRAINED = ("joint/mobilenet", "joint/mobilenet_light")
_SINGLE = 40  # predictions of one scan in a round
_FEW = 20  # scans, beside whose memory that of many is judged


def measure(settings: Settings) -> Iterator[Figure]:
    """For each run: milliseconds of one scan (p50, p95), scans a second with all files written, memory, size."""
    if settings.runs:
        yield from _measure(settings, settings.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [str(_untrained(name, Path(folder) / name)) for name in _UNTRAINED]
        yield from _measure(settings, runs)


def _measure(settings: Settings, runs: "tuple[str, ...] | list[str]") -> Iterator[Figure]:
    """All runs in turns, each round in a process of its own, whose memory is that of one run alone."""
    variants = [(run, precision) for run in runs for precision in _precisions(run)]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {variant: [] for variant in variants}
    for _ in range(settings.rounds):
        for variant, rounds in found.items():
            rounds.append(_in_process(replace(settings, runs=(variant[0],)), variant[1], settings.count))
    for (run, precision), rounds in found.items():
        few = _in_process(replace(settings, runs=(run,)), precision, _FEW)
        yield from _figures(Path(run), precision, rounds, few)


def _precisions(run: str) -> list[str]:
    """Those in which a run is measured: an exported one of OpenVINO in bf16 as well."""
    export = read_summary(Path(run)).export
    return ["32", "bf16"] if export is not None and export.format == "openvino" and not export.int8 else ["32"]


def _figures(run: Path, precision: str, rounds: list[dict[str, Any]], few: dict[str, Any]) -> Iterator[Figure]:
    summary = read_summary(run)
    label = f"{summary.experiment}, {rounds[0]['backend']}{'' if precision == '32' else f' {precision}'}"
    about = {
        "run": str(run.resolve()),
        "experiment": summary.experiment,
        "backend": rounds[0]["backend"],
        "precision": precision,
        "image_size": rounds[0]["image_size"],
        "parameters": summary.parameters,
        "bytes": sum(path.stat().st_size for path in _network_files(run)),
        "metrics": _quality(summary),
    }

    def figure(name: str, unit: str, key: str, higher: bool = False) -> Figure:
        return Figure("predict", f"{label}: {name}", unit, tuple(each[key] for each in rounds), higher, about)

    yield figure("network, one scan, median", "ms", "p50")
    yield figure("network, one scan, 95th percentile", "ms", "p95")
    yield figure("busi-predict, all files written", "scans/s", "speed", higher=True)
    yield figure(f"peak memory, {rounds[0]['scans']} scans", "MB", "memory")
    yield Figure("predict", f"{label}: peak memory, {few['scans']} scans", "MB", (few["memory"],), False, about)


def _quality(summary: Summary) -> dict[str, float]:
    """Validation figures; those behind INT8, where it has been judged."""
    known = {f"val/{name}": summary.metrics.get(f"val/{name}") for name in ("accuracy", "dice")}
    if summary.export is not None:
        for name in ("accuracy", "dice"):
            if pair := summary.export.quantization.get(name):
                known[f"val/{name}"] = pair[1]
    return {name: value for name, value in known.items() if isinstance(value, float)}


def _network_files(run: Path) -> list[Path]:
    exported = [path for path in run.glob("model.*") if path.is_file()]
    return exported or [run / BEST_CHECKPOINT]


def _in_process(settings: Settings, precision: str, count: int) -> dict[str, Any]:
    """What one process measures: its answer is the last line that it prints."""
    arguments = [settings.to_text(), precision, str(count)]
    command = [sys.executable, "-m", "busi_lab.benchmarks.prediction", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _one_process(settings: Settings, precision: str, count: int) -> dict[str, Any]:
    """Apply one run to one scan many times, then to many scans once."""
    run = Path(settings.runs[0])
    predictor = load(run, threads=settings.threads, precision=precision)
    task = predictor.task((predictor.segmenters or predictor.classifiers)[0])
    shape = 1, 1, task.image_size, task.image_size
    image = torch.randint(256, shape, dtype=torch.uint8, device=predictor.device)
    times = []
    with torch.inference_mode():
        for _ in range(_SINGLE + 5):
            clock = time.perf_counter()
            task(image)
            if image.is_cuda:
                torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - clock))
    listed, _ = list_scans([Path(settings.scans or phantoms(_FEW * 5))])
    repeated = itertools.islice(itertools.cycle(listed), count)
    files = [ScanFile(file.path, f"{number:06d}") for number, file in enumerate(repeated)]
    predictor.predict(files[0].path)
    with tempfile.TemporaryDirectory() as out:
        tally = predict_files(predictor, files, Path(out))
    p50, p95 = np.percentile(times[5:], [50, 95])
    return {
        "p50": float(p50),
        "p95": float(p95),
        "speed": tally.scans / tally.seconds,
        "scans": tally.scans,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024),
        "backend": predictor.runs[0].backend,
        "image_size": task.image_size,
    }


def _untrained(experiment: str, directory: Path) -> Path:
    """A run directory of a network with random weights: as fast as a trained one."""
    with initialize_config_dir(str(config_dir()), version_base=None):
        config = parse_config(compose("train", [f"experiment={experiment}", "model.weights=none", "run_dir=unused"]))
    task = build_task(config, BUSI).eval()
    checkpoint: dict[str, Any] = {"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict(), "epoch": 0}
    task.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, directory / BEST_CHECKPOINT)
    size = sum(parameter.numel() for parameter in task.network.parameters())
    summary = Summary("finished", task=task.kind, experiment=f"{experiment}, untrained", model=task.model_name)
    write_summary(directory, replace(summary, parameters=size))
    return directory


if __name__ == "__main__":
    print(json.dumps(_one_process(Settings.from_text(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
