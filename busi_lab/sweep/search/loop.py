"""The loop of a search: trials are asked for while there is room, and their directories say what came of them."""

import csv
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from busi_lab.run_directory import METRICS, PRUNE
from busi_lab.summary import SUMMARY, Summary
from busi_lab.sweep.conductor import Conductor
from busi_lab.sweep.record import JobRecord, SweepRecord, write_sweep
from busi_lab.sweep.search.result import names_of
from busi_lab.sweep.search.settings import SearchSettings
from busi_lab.sweep.search.study import overrides_of
from busi_lab.sweep.work import ended_well

log = logging.getLogger(__name__)


@dataclass
class _Trial:
    """A trial that is under way, with its jobs: one, or one for each fold."""

    trial: Any
    names: list[str]
    reported: int = 0
    size: int = 0  # of its metrics.csv, bytes, when that was read
    done: set[str] = field(default_factory=set)


class Loop:
    """Asks, starts, reports and tells until all trials are done.

    Args:
        study: of Optuna.
        directory: of the sweep.
        settings: of the search.
        conductor: carries the jobs out.
        record: of the sweep, before the jobs of this call.
        job: name and own overrides -> a job.
        objective: the validation figure.

    Attributes:
        names: of the jobs of all trials.
    """

    def __init__(
        self,
        study: Any,
        directory: Path,
        settings: SearchSettings,
        conductor: Conductor,
        record: SweepRecord,
        job: Callable[[str, Sequence[str]], JobRecord],
        objective: str,
    ) -> None:
        self._study, self._directory, self._settings, self._conductor = study, directory, settings, conductor
        self._record, self._job, self._objective = record, job, objective
        self._open: dict[int, _Trial] = {}
        self._proposed = 0
        self.names: list[str] = []

    def run(self, space: dict[str, Any], parallel: int) -> None:
        """Carry the search to its end; trials that were cut are continued first."""
        from optuna.trial import Trial, TrialState

        for frozen in self._study.get_trials(deepcopy=False):
            names = self._note_proposed(frozen.number)
            if frozen.state == TrialState.RUNNING:
                trial = Trial(self._study, frozen._trial_id)
                if frozen.params.keys() != space.keys():  # it was killed while it was proposed
                    self._study.sampler.before_trial(self._study, frozen)
                params = {key: trial._suggest(key, distribution) for key, distribution in space.items()}
                self._start(_Trial(trial, names, len(frozen.intermediate_values)), params)
        while True:
            while len(self._open) < parallel and self._to_come() and not self._conductor.gives_up:
                trial = self._study.ask(fixed_distributions=space)
                self._start(_Trial(trial, self._note_proposed(trial.number)), trial.params)
            if not self._open:
                return
            ended = self._conductor.step()
            for directory in ended:
                self._note(directory)
            for item in list(self._open.values()):
                self._report(item)

    def _note_proposed(self, number: int) -> list[str]:
        """Count a trial; the names of its jobs."""
        names = names_of(number, self._settings.folds)
        self._proposed += 1
        self.names += names
        return names

    def _to_come(self) -> int:
        """How many trials are still to be proposed: a grid ends with its last point."""
        from optuna.samplers import GridSampler

        wanted, sampler = self._settings.trials, self._study.sampler
        if isinstance(sampler, GridSampler):
            wanted = min(wanted, math.prod(len(values) for values in sampler._search_space.values()))
        return max(0, wanted - self._proposed)

    def _start(self, item: _Trial, params: Mapping[str, Any]) -> None:
        number = item.trial.number
        self._open[number] = item
        values = overrides_of(params)
        jobs = []
        for fold, name in enumerate(item.names):
            folds = ["split=grouped_kfold", f"split.fold={fold}"] if self._settings.folds else []
            jobs.append(self._job(name, [*folds, *values]))
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
        return (self._directory / name / SUMMARY).exists()

    def _report(self, item: _Trial) -> None:
        """Pass on the epochs that a trial has done, and ask it to end where the pruner says so."""
        if self._settings.pruner == "none":
            return
        directory = self._directory / item.names[0]
        size = _size(directory / METRICS)
        if size == item.size:
            return
        item.size, values = size, _epoch_values(directory / METRICS, self._objective)
        for epoch in range(item.reported, len(values)):
            item.trial.report(values[epoch], epoch)
        fresh = len(values) > item.reported
        item.reported = max(item.reported, len(values))
        if fresh and not (directory / PRUNE).exists() and item.trial.number in self._open and item.trial.should_prune():
            (directory / PRUNE).touch()


def _value(summary: Summary | None, objective: str) -> float | None:
    found = None if summary is None else summary.metrics.get(objective)
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # not there yet
        return 0


def _epoch_values(path: Path, objective: str) -> list[float]:
    """The objective after each epoch that is written whole."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        return [float(row[objective]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []
