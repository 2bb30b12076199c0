"""Sweeps on one machine: each job is a ``busi-train`` process of its own, so that none can harm another.

A sweep's directory follows from its command, and a job's directory from what sets it apart from the others: the
same command is the same sweep. Jobs that have finished are not run again.
"""

import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import SUMMARY, Summary, read_summary, write_summary

log = logging.getLogger(__name__)

_JOB_VARIABLE = "BUSI_LAB_JOB"  # set for the jobs of a sweep, which record that they could not start
_LOG_FILE = "job.log"


@dataclass
class Sweep:
    """What a launcher did: the directory and every job's directory."""

    directory: Path
    jobs: list[Path] = field(default_factory=list)


_current: Sweep | None = None


def directory_name(overrides: Sequence[str]) -> str:
    """A sweep's folder name: the sweep's own, and a digest of the whole command."""
    chosen = dict(item.split("=", 1) for item in overrides if "=" in item)
    label = _slug(chosen.get("sweep", "sweep"))
    return f"{label}-{hashlib.sha256(' '.join(sorted(overrides)).encode()).hexdigest()[:8]}"


def job_names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """A folder name for each job: the values of the overrides in which the jobs differ.

    Args:
        jobs: the overrides of each job, such as ``["experiment=paper/vgg16", "seed=1"]``.
    """
    rows = [dict(item.split("=", 1) for item in job if "=" in item) for job in jobs]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    varying = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    names = [_slug("-".join(_part(key, row[key]) for key in varying if key in row)) or "job" for row in rows]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]


def _part(key: str, value: str) -> str:
    word = key.strip("+~").split(".")[-1]
    return value if not re.fullmatch(r"[\d.eE+-]+|true|false|null", value, re.IGNORECASE) else f"{word}{value}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100]


def launch(config: DictConfig, jobs: Sequence[Sequence[str]], workers: int | None) -> list[float]:
    """Run the jobs of a sweep, each in a process of its own.

    Args:
        config: the composed multirun configuration, with its ``hydra`` node.
        jobs: the overrides of each job.
        workers: jobs at once; None for one on each visible GPU, or one where there is none.

    Returns:
        The validation objective of each job, NaN for one that failed.

    Raises:
        UserError: an override would undo the sweep, or the directory is of no use.
    """
    global _current
    hydra = config.hydra
    _refuse_narrowing(hydra)
    base = Path(str(hydra.sweep.dir)).absolute()
    _current = _current or Sweep(base)
    directories = [base / name for name in job_names(jobs)]
    _current.jobs += directories
    gpus = visible_gpus()
    slots: SimpleQueue[str | None] = SimpleQueue()
    count = workers or len(gpus) or 1
    for slot in range(count):
        slots.put(gpus[slot % len(gpus)] if gpus else None)
    log.info("sweep of %d jobs, %d at a time, in %s", len(jobs), min(count, len(jobs)), base)
    flags = _command_flags(hydra)
    limit = OmegaConf.select(config, "sweep.max_failures")
    failures: list[Path] = []

    def run(number: int) -> None:
        directory = directories[number]
        if limit is not None and len(failures) >= limit:
            return
        if _finished(directory) is not None:
            log.info("[%d/%d] %s: finished before, not run again", number + 1, len(jobs), directory.name)
            return
        gpu = slots.get()
        try:
            log.info("[%d/%d] %s", number + 1, len(jobs), directory.name)
            _run_job(directory, [*flags, *jobs[number]], gpu, count, quiet=count > 1)
            if _finished(directory) is None:
                failures.append(directory)
                log.info("[%d/%d] %s failed: %s", number + 1, len(jobs), directory.name, _reason(directory))
        finally:
            slots.put(gpu)

    with ThreadPoolExecutor(max_workers=count) as pool:
        list(pool.map(run, range(len(jobs))))
    return [_objective(directory) for directory in directories]


def _refuse_narrowing(hydra: Any) -> None:
    """``experiment=X`` beside a sweep over experiments would leave one job: say so instead."""
    swept = dict(hydra.sweeper.get("params") or {})
    for override in OverridesParser.create().parse_overrides(list(hydra.overrides.task)):
        if override.key_or_group in swept and not override.is_sweep_override():
            raise UserError(
                f"{override.input_line}: the chosen sweep varies {override.key_or_group}, one value would leave "
                f"one job; drop it, or drop sweep="
            )


def _command_flags(hydra: Any) -> list[str]:
    """What of the command line is not among the job's overrides but belongs to each job."""
    sources = [source for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [part for source in sources for part in ("--config-dir", source.path)]
    own = ("hydra.mode", "hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
    return flags + [item for item in hydra.overrides.hydra if not item.lstrip("+~").startswith(own)]


def _run_job(directory: Path, arguments: Sequence[str], gpu: str | None, count: int, quiet: bool) -> None:
    """Run one job to its end; leaves a summary in any case."""
    (directory / SUMMARY).unlink(missing_ok=True)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={directory.parent} cannot be written to ({error.strerror})") from None
    quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "busi_lab.train", *arguments, "hydra.mode=RUN", f"hydra.run.dir='{quoted}'"]
    environment = {**os.environ, _JOB_VARIABLE: "1"}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    elif count > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    started = time.perf_counter()
    output = (directory / _LOG_FILE).open("ab") if quiet else None
    try:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the job has had it too, and saves its state
            process.wait()
            raise
    finally:
        if output is not None:
            output.close()
    if not (directory / SUMMARY).exists():
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        seconds = {"total": time.perf_counter() - started}
        write_summary(directory, Summary("failed", error=f"the process {ended}", seconds=seconds))


def record_failure(directory: Path, error: UserError) -> None:
    """Let a sweep's job that could not start leave its reason; a single run leaves nothing behind."""
    if _JOB_VARIABLE in os.environ and not (directory / SUMMARY).exists():
        write_summary(directory, Summary("failed", experiment=directory.name, error=one_line(error)))


def _finished(directory: Path) -> Summary | None:
    try:
        summary = read_summary(directory)
    except UserError:
        return None
    return summary if summary.status == "finished" else None


def _reason(directory: Path) -> str:
    return read_summary(directory).error or "no reason given"


def _objective(directory: Path) -> float:
    summary = _finished(directory)
    return float("nan") if summary is None else float(summary.metrics[summary.objective["metric"]])


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Identifiers of the GPUs that jobs may use, found without CUDA being initialised here."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [item for item in environment["CUDA_VISIBLE_DEVICES"].split(",") if item.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def conclude() -> int:
    """After a sweep: print its ranking and its failures; returns the exit code."""
    if _current is None:
        return 0
    from busi_lab.compare import compare, describe  # plots take a second to import

    failed = [directory for directory in _current.jobs if _finished(directory) is None]
    if len(failed) < len(_current.jobs):
        report = _current.directory / "comparison"
        print(describe(compare([_current.directory], report), report))
    else:
        for directory in failed:
            reason = _reason(directory) if (directory / SUMMARY).exists() else "not started"
            print(f"{directory.name} failed: {reason}")
    return 1 if failed else 0
