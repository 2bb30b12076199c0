"""Carrying a sweep out: its record is written, then its jobs are run, continued or left alone."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from busi_lab.errors import UserError
from busi_lab.locks import locked
from busi_lab.plurals import counted
from busi_lab.run_directory import SWEEP_VARIABLE
from busi_lab.sweep.conductor import Conductor
from busi_lab.sweep.executors import Executor, Place, make_executor
from busi_lab.sweep.outcome import Sweep, objective
from busi_lab.sweep.plan import make_plan, refuse_wrong
from busi_lab.sweep.record import SweepRecord, read_sweep, write_sweep
from busi_lab.tracking import sweep_environment

log = logging.getLogger(__name__)


def launch(
    config: DictConfig,
    jobs: Sequence[Sequence[str]],
    compose: Callable[[Sequence[str]], DictConfig],
    launcher: Mapping[str, Any],
    before: Sweep | None = None,
) -> tuple[Sweep, list[float]]:
    """Run the jobs of a sweep, each in a process of its own.

    Jobs that have finished are not run again, jobs that were cut are continued. SIGTERM and Ctrl-C are passed on to
    jobs that do not outlive this process, and they save their state.

    Args:
        config: the composed multirun configuration, with its ``hydra`` node.
        jobs: the overrides of each job.
        compose: overrides -> the configuration of a job.
        launcher: the group of that name: where jobs run.
        before: the sweep, where its sweeper has launched jobs already.

    Returns:
        The sweep, and the validation objective of each job, NaN for one that failed.

    Raises:
        UserError: an override would undo the sweep, a job is wrong, or the directory is of no use.
        Stopped: SIGTERM or Ctrl-C.
    """
    failure_limit(config)
    plan = make_plan(config, jobs, compose)
    if before is None:  # a sweeper that proposes values is told of a wrong one as of a job that failed
        refuse_wrong(plan.jobs)
        executor = make_executor(launcher)
        if not str(OmegaConf.select(config, "hydra.sweeper._target_")).endswith(".BasicSweeper"):
            refuse_leaving(executor)
        before = begin_sweep(config, plan.directory, executor)
    sweep, executor = before, before.executor
    sweep.jobs += [job.directory for job in plan.jobs]
    configs = [job.config for job in plan.jobs]
    places = executor.places(configs)
    with locked(plan.directory):
        record = begin_record(sweep, executor.threads(configs)).with_jobs(
            [job.record(plan.arguments) for job in plan.jobs]
        )
        write_sweep(plan.directory, record)
        conductor = make_conductor(config, sweep, places, record)
        at_once = "" if places is None else f", {min(len(places), len(jobs))} at a time"
        log.info("sweep of %s%s, in %s", counted(len(jobs), "job"), at_once, plan.directory)
        for number, job in enumerate(plan.jobs, start=1):
            conductor.add(f"[{number}/{len(jobs)}] {job.directory.name}", record.job(job.directory.name))
        with conductor.watch():
            while conductor.busy and not conductor.left:
                conductor.step()
            conductor.step()  # a signal may have come with the last job's end
        if conductor.left:
            log.info("not waited for (launcher.wait=false): %s", executor.how_to_stop)
        sweep.left = conductor.left
    return sweep, [objective(job.directory) for job in plan.jobs]


def failure_limit(config: DictConfig) -> int | None:
    """After how many failures no job is started; None for no limit.

    Raises:
        UserError: ``sweep.max_failures`` is below 1.
    """
    limit = OmegaConf.select(config, "sweep.max_failures")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"sweep.max_failures={limit}: expected null or at least 1")
    return limit


def refuse_leaving(executor: Executor) -> None:
    """What proposes values needs those of the jobs before.

    Raises:
        UserError: nobody would wait for them.
    """
    if not executor.waits:
        raise UserError("launcher.wait=false: what proposes values needs what its jobs give; set launcher.wait=true")


def begin_sweep(config: DictConfig, directory: Path, executor: Executor) -> Sweep:
    """The record of a sweep, with what its trackers decide once for all jobs."""
    of_report = config.copy()
    of_report.run_dir = str(directory / "comparison")  # settings of trackers may refer to it
    loggers = of_report.get("logger") or {}
    environment = sweep_environment(loggers, directory, executor.elsewhere)
    return Sweep(directory, executor, loggers, {**environment, SWEEP_VARIABLE: directory.name})


def begin_record(sweep: Sweep, threads: int) -> SweepRecord:
    """What a sweep has decided: the threads of its jobs by its first call, what trackers have decided by this one."""
    before = read_sweep(sweep.directory) or SweepRecord(threads)
    if before.threads != threads:
        log.info("jobs have %s, as when the sweep was begun", counted(before.threads, "thread"))
    return replace(before, environment=dict(sweep.environment))


def make_conductor(config: DictConfig, sweep: Sweep, places: Sequence[Place] | None, record: SweepRecord) -> Conductor:
    """The loop that carries out the jobs of a sweep.

    Raises:
        UserError: as :func:`failure_limit`.
    """
    environment = {**record.environment, "OMP_NUM_THREADS": str(record.threads)}
    grace = float(OmegaConf.select(config, "sweep.grace"))
    return Conductor(sweep.directory, sweep.executor, places, environment, failure_limit(config), grace)
