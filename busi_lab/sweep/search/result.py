"""What a search leaves in its directory when it ends: its trials, and the best of them as an experiment."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from busi_lab.files import write_atomically, write_json, write_rows
from busi_lab.report.results.search import SEARCH
from busi_lab.sweep.search.study import importance, overrides_of

log = logging.getLogger(__name__)

TRIALS = "trials.csv"
BEST = "experiment/best.yaml"


def names_of(number: int, folds: int | None) -> list[str]:
    """Names of the jobs of a trial: one, or one for each fold."""
    return [f"trial{number:04d}"] if folds is None else [f"trial{number:04d}-fold{fold}" for fold in range(folds)]


def conclude(study: Any, directory: Path, objective: str, folds: int | None, shared: Sequence[str]) -> float:
    """Write ``trials.csv``, ``search.json`` and the best trial as an experiment, and say how it is tested.

    Args:
        study: of Optuna.
        directory: of the sweep.
        objective: the validation figure.
        folds: that a trial is the mean over; None for one run.
        shared: overrides that all trials share.

    Returns:
        The best value; NaN where no trial has one.
    """
    trials = study.get_trials(deepcopy=False)
    rows = [_row(trial) for trial in trials]
    keys = sorted({key for trial in trials for key in trial.params})
    cells = [row | {key: trial.params.get(key) for key in keys} for row, trial in zip(rows, trials, strict=True)]
    if cells:
        write_rows(directory / TRIALS, cells, cells[0])
    content = {
        "objective": objective,
        "mode": "min" if study.direction.name == "MINIMIZE" else "max",
        "folds": folds,
        "log": sorted(_logarithmic(trials)),
        "importance": importance(study),
        "trials": [
            {name: row[name] for name in ("trial", "state", "value")} | {"params": dict(trial.params)}
            for row, trial in zip(rows, trials, strict=True)
        ],
    }
    write_json(directory / SEARCH, content)
    if not any(row["value"] is not None for row in rows):
        log.info("no trial has a value")
        return math.nan
    best = study.best_trial
    experiment = _experiment(shared, best.params)
    write_atomically(directory / BEST, experiment)
    found = f"best trial {best.number} of {len(trials)}: {objective} {best.value:.4f}"
    log.info("%s, found on validation images alone", found)
    log.info("as an experiment, for busi-train --config-dir %s experiment=best:", directory)
    log.info(experiment.rstrip())
    if folds is None:
        (name,) = names_of(best.number, folds)
        log.info("its test figure, once, when you have decided: busi-eval run=%s", directory / name)
    return float(best.value)


def _row(trial: Any) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state.name == "COMPLETE" else None,
        "epochs": len(trial.intermediate_values) or None,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
    }


def _logarithmic(trials: Sequence[Any]) -> set[str]:
    """The settings that are drawn on a logarithmic scale."""
    return {key for trial in trials for key, drawn in trial.distributions.items() if getattr(drawn, "log", False)}


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
