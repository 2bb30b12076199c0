"""Which run is continued, and with which configuration: its own, but for what may change. Imports no torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from busi_lab.commandline import overridden_keys
from busi_lab.config import may_change_on_resume
from busi_lab.errors import UserError, one_line
from busi_lab.extensions import targets
from busi_lab.plurals import counted
from busi_lab.run_directory import CONFIG, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, SPLIT, quoted
from busi_lab.summary import SUMMARY, read_summary


def refuse_occupied(directory: Path) -> None:
    """A new run takes no directory that another has written to: their checkpoints and splits would mix.

    Raises:
        UserError: another has.
    """
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0":
        return  # by now rank 0 has written to it
    if not any((directory / name).exists() for name in (CONFIG, SUMMARY, "checkpoints")):
        return
    finished = (directory / SUMMARY).exists() and read_summary(directory).status == "finished"
    advice = "" if finished else f"continue it with resume={quoted(directory)}, "
    raise UserError(
        f"{directory} holds {'a finished' if finished else 'an unfinished'} run; {advice}choose another hydra.run.dir "
        "or remove that folder"
    )


def check_resumable(directory: Path) -> None:
    """Check that a directory holds a run that can be continued.

    Raises:
        UserError: it does not.
    """
    if not directory.is_dir():
        raise UserError(f"resume={directory}: no such folder; give the directory of a run")
    if not (directory / CONFIG).is_file():
        raise UserError(f"resume={directory}: no run directory, {CONFIG} is missing; give the directory of a run")
    if (directory / SUMMARY).exists() and read_summary(directory).status == "finished":
        raise UserError(f"resume={directory}: the run is finished and is not extended; start another")
    if not any((directory / name).is_file() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)):
        raise UserError(
            f"resume={directory}: no checkpoint to continue from, it was cut in its first epoch; "
            "start the run again in a new directory"
        )


def run_directory(resume: Any, fresh: str) -> str:
    """Where Hydra puts its files: into the run that is continued, once it is known to be one, or into a fresh folder.

    Raises:
        UserError: ``resume`` names no run that can be continued.
    """
    if resume is None:
        return fresh
    if not isinstance(resume, str):
        raise UserError(f"resume={resume}: expected the directory of a run")
    directory = Path(resume).absolute()
    check_resumable(Path(resume))
    return str(directory)


def resumed_config(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the run to be continued, with the overrides that may change.

    Raises:
        UserError: another override was given, or the run cannot be continued.
    """
    directory = Path(str(composed.resume)).absolute()
    check_resumable(directory)
    try:
        saved = OmegaConf.load(directory / CONFIG)
        epochs, _ = saved.trainer.max_epochs, saved.scheduler.name
    except (OSError, yaml.YAMLError, OmegaConfBaseException, AttributeError) as error:
        raise UserError(f"{directory / CONFIG} is damaged: {one_line(error)[:120]}; start the run again") from None
    _refuse_foreign(saved, directory, [str(name) for name in composed.get("trust") or ()])
    for override in overrides:
        if not may_change_on_resume(override):
            raise UserError(
                f"{override}: a continued run keeps its configuration; only trainer, logger, data.root and data.labels "
                "may change"
            )
    for group in (saved.callbacks, saved.logger):
        _move(group, str(saved.run_dir), str(directory))
    keys = overridden_keys(overrides)
    if "trainer.max_epochs" in keys and (planned := _planned(saved)):
        raise UserError(f"trainer.max_epochs: {planned} was planned for {counted(epochs, 'epoch')} and cannot change")
    if "trainer" in keys:
        saved.trainer = composed.trainer
        saved.trainer.max_epochs = epochs
    if "logger" in keys:
        saved.logger = composed.logger
    for key in keys:
        if "." in key:
            OmegaConf.update(saved, key, OmegaConf.select(composed, key), force_add=True)
    saved.run_dir = str(directory)
    saved.resume = str(directory)
    saved.split.manifest, saved.split.exclude = str(directory / SPLIT), None  # refuses data that have changed
    assert isinstance(saved, DictConfig)
    return saved


_OF_ANY_LENGTH = ("none", "plateau")  # schedules that do not ask how many steps there will be


def _planned(saved: Any) -> str | None:
    """What of a run follows from the number of all its steps; None where nothing does."""
    if saved.scheduler.name not in _OF_ANY_LENGTH:
        return f"the {saved.scheduler.name} schedule"
    task: Any = saved.get("task") or {}
    if task.get("semi", "none") != "none" and task.get("semi_ramp"):
        return f"the growing weight of task.semi={task['semi']}"
    return None


_HARMLESS = (
    *("busi_lab.tasks.", "busi_lab.run.checkpoints.", "busi_lab.run.callbacks.", "busi_lab.tracking."),
    *("busi_lab.callbacks.", "lightning.pytorch.callbacks.", "lightning.pytorch.loggers."),
)
"""Where the classes are that a run directory from elsewhere may name: they do what runs do."""


def _refuse_foreign(saved: Any, directory: Path, trusted: Sequence[str]) -> None:
    """A run directory may come from anyone: it names no code but what is installed for runs, and asks for nothing.

    Raises:
        UserError: its configuration names other code, or refers to something by ``${...}``.
    """
    path = directory / CONFIG
    if "${" in OmegaConf.to_yaml(saved):  # a run's own is resolved; a foreign one could ask for a secret
        raise UserError(f"{path} refers to something else by ${{...}}, which a run's own does not; start the run again")
    brought = {*targets("busi_lab.tasks"), *targets("busi_lab.trackers")}
    for target in _targets(OmegaConf.to_container(saved)):
        if target not in brought and not target.startswith((*_HARMLESS, *(f"{name}." for name in trusted))):
            package = target.partition(".")[0]
            raise UserError(
                f"{path} names {target}, which is neither of busi_lab nor a callback or logger of Lightning; where you "
                f"trust this run directory, add trust=[{package}]"
            )


def _targets(node: Any) -> Iterator[str]:
    """All that a configuration would have imported and called, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for item in node:
            yield from _targets(item)


def trusted_packages(config: Any) -> list[str]:
    """Packages of the classes that a configuration names and that are not trusted anyway.

    A sweep trusts the command that it was composed from, so that its jobs can be continued.
    """
    foreign = (target for target in _targets(config) if not target.startswith(_HARMLESS))
    return sorted({target.partition(".")[0] for target in foreign})


def _move(group: Any, before: str, after: str) -> None:
    """Let callbacks and loggers write into the run directory where it is now."""
    for item in (value for value in group.values() if value):
        for key, value in item.items():
            if isinstance(value, str) and (value == before or value.startswith(before + os.sep)):
                item[key] = after + value[len(before) :]
