"""A search for hyperparameters, from its settings to its result: what ``busi-train search=NAME`` calls."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from busi_lab.locks import locked
from busi_lab.plurals import counted
from busi_lab.sweep.executors import make_executor
from busi_lab.sweep.launch import begin_record, begin_sweep, make_conductor, refuse_leaving
from busi_lab.sweep.outcome import Sweep
from busi_lab.sweep.plan import Job, command_flags, refuse_wrong
from busi_lab.sweep.record import JobRecord
from busi_lab.sweep.search.loop import Loop
from busi_lab.sweep.search.result import conclude
from busi_lab.sweep.search.settings import search_settings
from busi_lab.sweep.search.study import distributions, identity, open_study, overrides_of

log = logging.getLogger(__name__)

_BIAS = (
    "validation images of one fold are test images of another, so test figures of the best trial on these folds are a "
    "little too good"
)
_IN_A_QUEUE = 4  # trials at once where the launcher takes any number


def search(
    config: DictConfig,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], DictConfig],
    launcher: Mapping[str, Any],
) -> tuple[Sweep, float]:
    """Search for hyperparameters, or go on.

    Args:
        config: the composed multirun configuration, with its ``hydra`` node.
        overrides: that all trials share.
        compose: overrides -> the configuration of a job.
        launcher: the group of that name.

    Returns:
        The sweep, and the best value; NaN where no trial has one.

    Raises:
        UserError: a setting is wrong, or the directory is of no use.
        Stopped: SIGTERM or Ctrl-C.
    """
    group: Any = OmegaConf.to_container(config.search, resolve=True)
    settings, space = search_settings(group)
    directory = Path(str(config.hydra.sweep.dir)).absolute()
    shared = [*overrides, "test=false"]
    first = [value for key, item in distributions(space).items() for value in overrides_of({key: _any(item)})]
    tried = Job(directory / "trial", (*shared, *first), compose([*shared, *first]))
    tried.config.run_dir = str(tried.directory)
    refuse_wrong([tried])
    objective, mode = _refuse_what_no_trial_could(tried.config)
    executor = make_executor(launcher)
    refuse_leaving(executor)
    sweep = begin_sweep(config, directory, executor)
    places = executor.places([tried.config])
    with locked(directory):
        study = open_study(
            directory, settings, space, mode, identity(space, objective, mode, settings.folds, overrides)
        )
        record = begin_record(sweep, executor.threads([tried.config]))
        conductor = make_conductor(config, sweep, places, record)
        flags = command_flags(config.hydra)

        def job(name: str, own: Sequence[str]) -> JobRecord:
            return Job(directory / name, (*shared, *own), tried.config).record(flags)

        loop = Loop(study, directory, settings, conductor, record, job, objective)
        parallel = settings.parallel or (len(places) if places is not None else _IN_A_QUEUE)
        trials = counted(settings.trials, "trial")
        log.info("search of %s, %d at a time, for the best %s, in %s", trials, parallel, objective, directory)
        if settings.folds:
            log.info("the mean over %d folds decides: %s", settings.folds, _BIAS)
        with conductor.watch():
            loop.run(distributions(space), parallel)
    sweep.jobs = [directory / name for name in loop.names]
    return sweep, conclude(study, directory, objective, settings.folds, shared)


def _any(distribution: Any) -> Any:
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low


def _refuse_what_no_trial_could(config: DictConfig) -> tuple[str, str]:
    """Build the task of a trial, without weights, before any is submitted; what it is judged by, and max or min.

    Raises:
        UserError: the task refuses its configuration, or does not have the metric of ``task.monitor``.
    """
    from busi_lab.config import parse_config
    from busi_lab.run.build import build_task, find_classes  # torch: seconds

    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    resolved.model.weights = "none"
    parsed = parse_config(resolved)
    task = build_task(parsed, find_classes(parsed.data))
    return task.monitor, task.monitor_mode
