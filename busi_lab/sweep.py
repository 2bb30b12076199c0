"""Sweeps on one machine: each job is a ``busi-train`` process of its own, so that none can harm another.

A sweep's directory follows from its command, and a job's directory from what sets it apart from the others: the
same command is the same sweep. Its finished jobs are not run again, and jobs that were cut are continued.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from busi_lab.config import may_change_on_resume
from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import (
    CONFIG,
    LAST_CHECKPOINT,
    METRICS,
    PREDICTIONS,
    PREVIOUS_CHECKPOINT,
    SPLIT,
    SUMMARY,
    SWEEP_VARIABLE,
    Summary,
    locked,
    quoted,
    read_summary,
    write_summary,
)
from busi_lab.tracking import publish_report, record_failed_start, sweep_environment

log = logging.getLogger(__name__)

_LOG_FILE = "job.log"


@dataclass
class Sweep:
    """What a launcher did: the directory, every job's directory, and the trackers with their environment."""

    directory: Path
    loggers: Any = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    jobs: list[Path] = field(default_factory=list)


_current: Sweep | None = None


def directory_name(overrides: Sequence[str]) -> str:
    """A sweep's folder name: the sweep's own, and a digest of the whole command."""
    chosen = dict(item.split("=", 1) for item in overrides if "=" in item)
    label = _slug(chosen.get("sweep", "sweep"))
    return f"{label}-{hashlib.sha256(' '.join(sorted(overrides)).encode()).hexdigest()[:8]}"


def job_names(jobs: Sequence[Sequence[str]], varied: Collection[str]) -> list[str]:
    """A folder name for each job: the values of the overrides that the sweep varies.

    A name depends on its job alone, since some sweepers start jobs in batches. Where values that differ give equal
    names, a digest is added.

    Args:
        jobs: the overrides of each job, such as ``["experiment=paper/vgg16", "seed=1"]``.
        varied: keys that the sweep varies.
    """
    rows = [dict(item.split("=", 1) for item in job if "=" in item) for job in jobs]
    parts = [[(key, value) for key, value in row.items() if key.lstrip("+~") in varied] for row in rows]
    return [_name(part) for part in parts]


def _name(varied: Sequence[tuple[str, str]]) -> str:
    plain = "-".join(_part(key, value) for key, value in varied)
    slug = _slug(plain)
    if slug == plain.replace("/", "-") and len({key.split(".")[-1] for key, _ in varied}) == len(varied):
        return slug or "job"
    return f"{slug}-{hashlib.sha256(str(varied).encode()).hexdigest()[:6]}"


def varied_keys(hydra: Any) -> set[str]:
    """The keys that a sweep varies, by its command line and by its sweeper's parameters."""
    overrides = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    swept = {item.key_or_group for item in overrides if item.is_sweep_override()}
    return swept | {str(key).lstrip("+~") for key in hydra.sweeper.get("params") or {}}


def _part(key: str, value: str) -> str:
    word = key.strip("+~").split(".")[-1]
    return value if not re.fullmatch(r"[\d.eE+-]+|true|false|null", value, re.IGNORECASE) else f"{word}{value}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100]


def launch(
    config: DictConfig,
    jobs: Sequence[Sequence[str]],
    workers: int | None,
    compose: Callable[[Sequence[str]], DictConfig],
) -> list[float]:
    """Run the jobs of a sweep, each in a process of its own.

    Jobs that have finished are not run again, jobs that were cut are continued. SIGTERM and Ctrl-C are passed on to
    the jobs, which save their state.

    Args:
        config: the composed multirun configuration, with its ``hydra`` node.
        jobs: the overrides of each job.
        workers: jobs at once; None for one on each visible GPU, or one where there is none.
        compose: overrides -> the configuration of a job.

    Returns:
        The validation objective of each job, NaN for one that failed.

    Raises:
        UserError: an override would undo the sweep, or the directory is of no use.
        Stopped: SIGTERM or Ctrl-C.
    """
    global _current
    _refuse_narrowing(config.hydra)
    if workers is not None and workers < 1:
        raise UserError(f"hydra.launcher.n_jobs={workers}: expected null or at least 1")
    limit = OmegaConf.select(config, "sweep.max_failures")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"sweep.max_failures={limit}: expected null or at least 1")
    base = Path(str(config.hydra.sweep.dir)).absolute()
    directories = [base / name for name in job_names(jobs, varied_keys(config.hydra))]
    composed = [compose(overrides) for overrides in jobs]
    for directory, job in zip(directories, composed, strict=True):
        _refuse_another_run(directory, job)
    _current = _current or Sweep(base)
    _current.jobs += directories
    report = config.copy()
    report.run_dir = str(base / "comparison")
    _current.loggers = report.get("logger") or {}
    environment = {**sweep_environment(_current.loggers, base), SWEEP_VARIABLE: base.name}
    _current.environment = environment
    wanted = {(str(job.trainer.get("accelerator")), str(job.trainer.get("devices", 1))) for job in composed}
    shared = any(accelerator == "cpu" or devices != "1" for accelerator, devices in wanted)
    gpus = [] if shared else visible_gpus()  # a job that wants no GPU, or several, sees the machine as it is
    count = workers or len(gpus) or 1
    log.info("sweep of %d jobs, %d at a time, in %s", len(jobs), min(count, len(jobs)), base)
    with locked(base):
        pool = _Pool(count, gpus, environment, limit)
        pool.run(directories, jobs, _command_flags(config.hydra))
    return [_objective(directory) for directory in directories]


def is_running() -> bool:
    """Whether this process has launched a sweep."""
    return _current is not None


class Stopped(BaseException):
    """The sweep was asked to stop by signal ``signum``; its jobs have saved their state."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class _Pool:
    """Runs jobs as processes, some at a time.

    Args:
        count: jobs at once.
        gpus: identifiers of the GPUs to hand out; empty for none.
        environment: variables for every job.
        max_failures: start no job after so many have failed; None for no limit.
    """

    def __init__(
        self, count: int, gpus: Sequence[str], environment: Mapping[str, str], max_failures: int | None
    ) -> None:
        self._count = count
        self._slots: SimpleQueue[str | None] = SimpleQueue()
        for slot in range(count):
            self._slots.put(gpus[slot % len(gpus)] if gpus else None)
        self._environment = environment
        self._max_failures = max_failures
        self._failures = 0
        self._signum: int | None = None
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(self, directories: Sequence[Path], jobs: Sequence[Sequence[str]], flags: Sequence[str]) -> None:
        """Run all jobs; returns when the last has ended."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, self._pass_on)
        try:
            with ThreadPoolExecutor(max_workers=self._count) as pool:
                titles = [f"[{number}/{len(jobs)}] {item.name}" for number, item in enumerate(directories, start=1)]
                for outcome in [pool.submit(self._do, *item, flags) for item in zip(titles, directories, jobs)]:  # noqa: B905
                    outcome.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signum is not None:
            raise Stopped(self._signum)

    def _pass_on(self, signum: int, frame: Any) -> None:
        self._signum = signum
        for process in list(self._processes):
            process.send_signal(signal.SIGTERM)

    def _do(self, title: str, directory: Path, overrides: Sequence[str], flags: Sequence[str]) -> None:
        gpu = self._slots.get()
        try:
            if self._signum is not None:
                return
            if _finished(directory) is not None:
                log.info("%s: finished before, not run again", title)
                return
            if self._max_failures is not None and self._failures >= self._max_failures:
                log.info("%s: not started after %d failures (sweep.max_failures)", title, self._failures)
                return
            resumable = any((directory / name).exists() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT))
            if not resumable:
                _clear(directory)
            log.info("%s%s", title, ": continued" if resumable else "")
            self._execute(directory, [*flags, *(_kept(overrides, directory) if resumable else overrides)], gpu)
            if self._signum is None and _finished(directory) is None:
                self._failures += 1
                log.info("%s failed: %s", title, _reason(directory))
        finally:
            self._slots.put(gpu)

    def _execute(self, directory: Path, arguments: Sequence[str], gpu: str | None) -> None:
        """Run one job to its end; leaves a summary unless it was asked to stop."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / SUMMARY).unlink(missing_ok=True)
        run_dir = f"hydra.run.dir={quoted(directory)}"
        command = [sys.executable, "-m", "busi_lab.train", *arguments, "hydra.mode=RUN", run_dir]
        environment = {**os.environ, **self._environment}
        environment.pop("WANDB_RUN_ID", None)  # names one run, not every job
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        elif self._count > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._count)))
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            output = stack.enter_context((directory / _LOG_FILE).open("ab")) if self._count > 1 else None
            # a session of its own: Ctrl-C reaches a job once, from here
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            self._processes.add(process)
            if self._signum is not None:
                process.send_signal(signal.SIGTERM)
            code = process.wait()
            self._processes.discard(process)
        if not (directory / SUMMARY).exists() and self._signum is None:
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            seconds = {"total": time.perf_counter() - started}
            failure = Summary("failed", experiment=directory.name, error=f"the process {ended}", seconds=seconds)
            write_summary(directory, failure)


def _kept(overrides: Sequence[str], directory: Path) -> list[str]:
    """The overrides of a job that is continued: those which a continued run takes."""
    # the number of epochs is part of the job, and already in its configuration
    kept = [item for item in overrides if may_change_on_resume(item) and "trainer.max_epochs" not in item]
    return [f"resume={quoted(directory)}", *kept]


def _clear(directory: Path) -> None:
    """Remove what a job has left that was cut before its first checkpoint; its W&B id stays."""
    for name in (CONFIG, SPLIT, METRICS, PREDICTIONS):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)


def _refuse_another_run(directory: Path, config: DictConfig) -> None:
    """A job's directory may hold that job alone, finished or cut.

    Raises:
        UserError: it holds a run of another configuration.
    """
    if not (directory / CONFIG).is_file():
        return
    saved = OmegaConf.load(directory / CONFIG)
    config.run_dir = str(directory)
    wanted = OmegaConf.to_container(config, resolve=True)
    assert isinstance(wanted, dict)
    before: Any = OmegaConf.to_container(saved)
    finished = _finished(directory) is not None
    for part in (before, wanted):
        part["epochs"] = (part.get("trainer") or {}).get("max_epochs")
        for key in ("num_workers", "cache_dir", *(() if finished else ("root",))):
            (part.get("data") or {}).pop(key, None)
        part["manifest"] = (part.get("split") or {}).pop("manifest", None)
    for key in ("name", "seed", "data", "split", "augment", "model", "task", "optim", "scheduler", "epochs"):
        if before.get(key) != wanted.get(key):
            raise UserError(
                f"{directory} holds a run with another {key}; choose another hydra.sweep.dir or remove that folder"
            )


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


def record_failure(directory: Path, config: Any, error: Exception) -> None:
    """Let a sweep's job that could not start leave its reason; a single run leaves nothing behind."""
    if SWEEP_VARIABLE not in os.environ or (directory / SUMMARY).exists():
        return
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    reason = f"{kind}{one_line(error)}"
    name = OmegaConf.select(config, "name") or directory.name
    write_summary(directory, Summary("failed", experiment=str(name), error=reason))
    with contextlib.suppress(UserError):  # the first error counts
        record_failed_start(config.get("logger") or {}, directory, {"name": name}, reason)


def _finished(directory: Path) -> Summary | None:
    try:
        summary = read_summary(directory)
    except UserError:
        return None
    return summary if summary.status == "finished" else None


def _reason(directory: Path) -> str:
    try:
        return read_summary(directory).error or "no reason given"
    except UserError as error:
        return str(error)


def _objective(directory: Path) -> float:
    summary = _finished(directory)
    value = None if summary is None else summary.metrics.get(summary.objective.get("metric", ""))
    return float("nan") if value is None else float(value)


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Identifiers of the GPUs that jobs may use, found without CUDA being initialised here."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [item for item in environment["CUDA_VISIBLE_DEVICES"].split(",") if item.strip() not in ("", "-1")]
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
    idle = [directory.name for directory in failed if not (directory / SUMMARY).exists()]
    if len(failed) < len(_current.jobs):
        report = _current.directory / "comparison"
        print(describe(compare([_current.directory], report), report))
        publish_report(_current.loggers, report, f"report-{_current.directory.name}", _current.environment)
    else:
        for directory in failed:
            print(f"{directory.name}: {_reason(directory) if directory.name not in idle else 'not started'}")
    if idle and len(failed) < len(_current.jobs):
        print(f"not started: {', '.join(idle)}")
    return 1 if failed else 0
