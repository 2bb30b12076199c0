"""The loop of a search: trials are asked for while there is room, and their directories say what came of them."""

import csv
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from busi_lab.files import write_atomically, write_json, write_rows
from busi_lab.locks import locked
from busi_lab.plurals import counted
from busi_lab.report.results.search import SEARCH
from busi_lab.run_directory import METRICS, PRUNE
from busi_lab.summary import Summary
from busi_lab.sweep.conductor import Conductor
from busi_lab.sweep.executors import make_executor
from busi_lab.sweep.launch import begin_sweep, failure_limit, refuse_leaving
from busi_lab.sweep.outcome import Sweep
from busi_lab.sweep.plan import Job, command_flags, refuse_wrong
from busi_lab.sweep.record import JobRecord, SweepRecord, read_sweep, write_sweep
from busi_lab.sweep.search.settings import SearchSettings, search_settings
from busi_lab.sweep.search.study import distributions, identity, importance, open_study, overrides_of
from busi_lab.sweep.work import ended_well

log = logging.getLogger(__name__)

TRIALS = "trials.csv"
BEST = "experiment/best.yaml"
_IN_A_QUEUE = 4  # trials at once where the launcher takes any number


@dataclass
class _Trial:
    """A trial that is under way, with its jobs: one, or one for each fold."""

    trial: Any
    names: list[str]
    reported: int = 0
    done: set[str] = field(default_factory=set)


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
        before = read_sweep(directory) or SweepRecord(executor.threads([tried.config]))
        record = replace(before, environment=dict(sweep.environment))
        variables = {**record.environment, "OMP_NUM_THREADS": str(record.threads)}
        grace = float(OmegaConf.select(config, "sweep.grace"))
        conductor = Conductor(directory, executor, places, variables, failure_limit(config), grace)
        loop = _Loop(
            study, directory, settings, conductor, record, shared, command_flags(config.hydra), objective, tried.config
        )
        parallel = settings.parallel or (len(places) if places is not None else _IN_A_QUEUE)
        log.info("search of %s, %d at a time, for the best %s, in %s", counted(settings.trials, "trial"), parallel,
                 objective, directory)  # fmt: skip
        if settings.folds:
            log.info(
                "the mean over %d folds decides: validation images of one fold are test images of another, so test "
                "figures of the best trial on these folds are a little too good", settings.folds
            )  # fmt: skip
        with conductor.watch():
            loop.run(distributions(space), parallel)
    sweep.jobs = [directory / name for name in loop.names]
    loop.conclude()
    values = [trial.value for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    return sweep, (min if mode == "min" else max)(values, default=math.nan)


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


class _Loop:
    """Asks, starts, reports and tells until all trials are done."""

    def __init__(
        self,
        study: Any,
        directory: Path,
        settings: SearchSettings,
        conductor: Conductor,
        record: SweepRecord,
        shared: Sequence[str],
        flags: Sequence[str],
        objective: str,
        config: DictConfig,
    ) -> None:
        self._config = config
        self._study, self._directory, self._settings, self._conductor = study, directory, settings, conductor
        self._record, self._shared, self._flags, self._objective = record, list(shared), list(flags), objective
        self._open: dict[int, _Trial] = {}
        self.names: list[str] = []

    def run(self, space: dict[str, Any], parallel: int) -> None:
        """Carry the search to its end; trials that were cut are continued first."""
        from optuna.trial import Trial, TrialState

        for frozen in self._study.get_trials(deepcopy=False):
            names = self._names_of(frozen.number)
            self.names += names
            if frozen.state == TrialState.RUNNING:
                trial = Trial(self._study, frozen._trial_id)
                if frozen.params.keys() != space.keys():  # it was killed while it was proposed
                    self._study.sampler.before_trial(self._study, frozen)
                params = {key: trial._suggest(key, distribution) for key, distribution in space.items()}
                self._start(_Trial(trial, names, len(frozen.intermediate_values)), params)
        while True:
            while len(self._open) < parallel and self._to_come() and not self._conductor.gives_up:
                trial = self._study.ask(fixed_distributions=space)
                names = self._names_of(trial.number)
                self.names += names
                self._start(_Trial(trial, names), trial.params)
            if not self._open:
                return
            ended = self._conductor.step()
            for directory in ended:
                self._note(directory)
            for item in list(self._open.values()):
                self._report(item)

    def _to_come(self) -> int:
        """How many trials are still to be proposed: a grid ends with its last point."""
        from optuna.samplers import GridSampler

        wanted, sampler = self._settings.trials, self._study.sampler
        if isinstance(sampler, GridSampler):
            wanted = min(wanted, math.prod(len(values) for values in sampler._search_space.values()))
        return max(0, wanted - len(self._study.get_trials(deepcopy=False)))

    def _names_of(self, number: int) -> list[str]:
        if not self._settings.folds:
            return [f"trial{number:04d}"]
        return [f"trial{number:04d}-fold{fold}" for fold in range(self._settings.folds)]

    def _start(self, item: _Trial, params: Mapping[str, Any]) -> None:
        number = item.trial.number
        self._open[number] = item
        values = overrides_of(params)
        jobs = []
        for fold, name in enumerate(item.names):
            folds = ["split=grouped_kfold", f"split.fold={fold}"] if self._settings.folds else []
            overrides = [*self._shared, *folds, *values]
            job = Job(self._directory / name, tuple(overrides), self._config)
            jobs.append(JobRecord(name, (*self._flags, *overrides), (*self._flags, *job.continued)))
        self._record = replace(self._record.with_jobs(jobs), to_come=self._to_come() * len(jobs))
        write_sweep(self._directory, self._record)
        for job_record in jobs:
            title = f"[{number + 1}/{self._settings.trials}] {job_record.name}: {' '.join(values)}"
            self._conductor.add(title, job_record)

    def _note(self, directory: Path) -> None:
        """Tell the study of a trial whose last job has ended."""
        from optuna.trial import TrialState

        item = next((each for each in self._open.values() if directory.name in each.names), None)
        if item is None:
            return
        item.done.add(directory.name)
        if len(item.done) < len(item.names):
            return
        del self._open[item.trial.number]
        summaries = [ended_well(self._directory / name) for name in item.names]
        if not all(self._begun(name) for name in item.names):
            return  # it was not started; the next call will
        values = [_value(summary, self._objective) for summary in summaries]
        if any(value is None for value in values):
            self._study.tell(item.trial, state=TrialState.FAIL)
        elif summaries[0] is not None and summaries[0].status == "pruned":
            self._report(item)
            self._study.tell(item.trial, state=TrialState.PRUNED)
        else:
            mean = sum(value for value in values if value is not None) / len(values)
            log.info("trial %d: %s %.4f", item.trial.number, self._objective, mean)
            self._study.tell(item.trial, mean)

    def _begun(self, name: str) -> bool:
        return (self._directory / name / "summary.json").exists()

    def _report(self, item: _Trial) -> None:
        """Pass on the epochs that a trial has done, and ask it to end where the pruner says so."""
        if self._settings.pruner == "none":
            return
        directory = self._directory / item.names[0]
        values = _epoch_values(directory / METRICS, self._objective)
        for epoch in range(item.reported, len(values)):
            item.trial.report(values[epoch], epoch)
        fresh = len(values) > item.reported
        item.reported = max(item.reported, len(values))
        if fresh and not (directory / PRUNE).exists() and item.trial.number in self._open and item.trial.should_prune():
            (directory / PRUNE).touch()

    def conclude(self) -> None:
        """Write ``trials.csv``, ``search.json`` and the best trial as an experiment, and say how it is tested."""
        trials = self._study.get_trials(deepcopy=False)
        keys = sorted({key for trial in trials for key in trial.params})
        rows = [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value if trial.state.name == "COMPLETE" else None,
                "epochs": len(trial.intermediate_values) or None,
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                **{key: trial.params.get(key) for key in keys},
            }
            for trial in trials
        ]
        if rows:
            write_rows(self._directory / TRIALS, rows, rows[0])
        content = {
            "objective": self._objective,
            "mode": "min" if self._study.direction.name == "MINIMIZE" else "max",
            "folds": self._settings.folds,
            "log": sorted(_logarithmic(trials)),
            "importance": importance(self._study),
            "trials": [
                {name: row[name] for name in ("trial", "state", "value")} | {"params": dict(trial.params)}
                for row, trial in zip(rows, trials, strict=True)
            ],
        }
        write_json(self._directory / SEARCH, content)
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        if not complete:
            log.info("no trial has a value")
            return
        best = self._study.best_trial
        names = self._names_of(best.number)
        experiment = _experiment(self._shared, best.params)
        write_atomically(self._directory / BEST, experiment)
        log.info("best trial %d of %d: %s %.4f, found on validation images alone", best.number, len(trials),
                 self._objective, best.value)  # fmt: skip
        log.info("as an experiment, for busi-train --config-dir %s experiment=best:", self._directory)
        log.info(experiment.rstrip())
        if len(names) == 1:
            log.info("its test figure, once, when you have decided: busi-eval run=%s", self._directory / names[0])


def _logarithmic(trials: Sequence[Any]) -> set[str]:
    """The settings that are drawn on a logarithmic scale."""
    return {key for trial in trials for key, drawn in trial.distributions.items() if getattr(drawn, "log", False)}


def _value(summary: Summary | None, objective: str) -> float | None:
    found = None if summary is None else summary.metrics.get(objective)
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _epoch_values(path: Path, objective: str) -> list[float]:
    """The objective after each epoch that is written whole."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        return [float(row[objective]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


_OF_THE_CALL = {
    *("search", "test", "trainer", "debug", "data.root", "data.cache_dir", "data.num_workers", "trainer.accelerator"),
    *("trainer.devices", "trainer.strategy"),
}


def _experiment(shared: Sequence[str], params: Mapping[str, Any]) -> str:
    """The best trial as a file for ``conf/experiment``: its groups and its values, but for those of the machine."""
    groups, values = [], {}
    for item in (*shared, *overrides_of(params)):
        key, _, value = item.lstrip("+").partition("=")
        if key in _OF_THE_CALL or key.startswith(("search.", "sweep.", "logger")):
            continue
        if "." in key or key in ("seed", "name"):
            values[key] = value
        else:
            groups.append((key, value))
    content: Any = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(content, key, OmegaConf.create(f"v: {value}").v)
    defaults = "".join(
        f"  - /{key}/{value}@_global_\n" if key == "experiment" else f"  - override /{key}: {value}\n"
        for key, value in sorted(groups, key=lambda pair: pair[0] != "experiment")
    )
    head = "# @package _global_\n# The best trial of a search, chosen on validation images alone\n"
    return head + (f"defaults:\n{defaults}" if defaults else "") + OmegaConf.to_yaml(content)
