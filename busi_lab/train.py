"""busi-train: fit, validate the best epoch, test; one run, or a sweep with ``-m``."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from busi_lab import sweep
from busi_lab.commandline import advice, command_line, first_sentence, hydra_errors, is_full_disk, overridden_keys
from busi_lab.config import config_dir, may_change_on_resume, parse_config
from busi_lab.errors import UserError, exit_on_user_error, one_line
from busi_lab.run_directory import (
    CONFIG,
    LAST_CHECKPOINT,
    PREVIOUS_CHECKPOINT,
    SPLIT,
    SUMMARY,
    quoted,
    read_summary,
)
from busi_lab.tracking import check_trackers

OmegaConf.register_new_resolver("busi_sweep", sweep.directory_name, replace=True)


def train(config: DictConfig, overrides: Sequence[str] = (), command: str | None = None) -> float:
    """Carry out one run, or continue one.

    Args:
        config: composed from ``conf/train.yaml``.
        overrides: the command line's, which a continued run takes over selectively.
        command: the command line that gives this run, for its record.

    Returns:
        The validation objective of the best epoch.

    Raises:
        UserError: an input is wrong, or the run directory holds a finished run.
        Interrupted: SIGTERM or Ctrl-C; the run can be continued.
    """
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    if resolved.get("resume"):
        resolved = _resumed(resolved, overrides)
    else:
        resolved.command = command
    parsed = parse_config(resolved)
    check_trackers(parsed.logger)
    directory = Path(parsed.run_dir)
    if not parsed.resume and os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        _refuse_occupied(directory)  # by now rank 0 has written to it, if this is another
    from busi_lab.experiment import run_experiment  # torch and its company take seconds: not for --help

    summary = run_experiment(parsed, resolved)
    return float(summary.metrics[summary.objective["metric"]])


def _refuse_occupied(directory: Path) -> None:
    """A new run takes no directory that another has written to: their checkpoints and splits would mix."""
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


def _resumed(composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the run to be continued, with the overrides that may change.

    Raises:
        UserError: another override was given, or the run cannot be continued.
    """
    directory = Path(str(composed.resume)).absolute()
    check_resumable(directory)
    try:
        saved = OmegaConf.load(directory / CONFIG)
        epochs, scheduler = saved.trainer.max_epochs, saved.scheduler.name
    except (OSError, yaml.YAMLError, OmegaConfBaseException, AttributeError) as error:
        raise UserError(f"{directory / CONFIG} is damaged: {one_line(error)[:120]}; start the run again") from None
    for override in overrides:
        if not may_change_on_resume(override):
            raise UserError(
                f"{override}: a continued run keeps its configuration; only trainer, logger and data.root may change"
            )
    keys = overridden_keys(overrides)
    if "trainer.max_epochs" in keys and scheduler in ("onecycle", "cosine"):
        raise UserError(
            f"trainer.max_epochs: the {scheduler} schedule was planned for {epochs} epochs and cannot change"
        )
    if "trainer" in keys:
        saved.trainer = composed.trainer
        saved.trainer.max_epochs = epochs
    if "logger" in keys:
        saved.logger = composed.logger
    for key in keys:
        if "." in key:
            OmegaConf.update(saved, key, OmegaConf.select(composed, key), force_add=True)
    for group in (saved.callbacks, saved.logger):
        _move(group, str(saved.run_dir), str(directory))
    saved.run_dir = str(directory)
    saved.resume = str(directory)
    saved.split.manifest = str(directory / SPLIT)  # refuses data that have changed
    assert isinstance(saved, DictConfig)
    return saved


def _move(group: Any, before: str, after: str) -> None:
    """Let callbacks and loggers write into the run directory where it is now."""
    for item in (value for value in group.values() if value):
        for key, value in item.items():
            if isinstance(value, str) and value.startswith(before):
                item[key] = after + value[len(before) :]


_entered: list[str] = []
_rejected: list[UserError] = []  # Hydra would print a second line for an error that leaves the job


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")
def _job(config: DictConfig) -> float:
    _entered.append(str(config.run_dir))
    overrides = list(HydraConfig.get().overrides.task)
    try:
        return train(config, overrides, command_line("busi-train", HydraConfig.get()))
    except (UserError, HydraException, OmegaConfBaseException) as error:
        rejection = error if isinstance(error, UserError) else UserError(first_sentence(error))
        sweep.record_failure(Path(config.run_dir), config, rejection)
        _rejected.append(rejection)
        return math.nan
    except OSError as error:
        sweep.record_failure(Path(config.run_dir), config, error)
        if not is_full_disk(error):
            raise
        full = f"no space left for {error.filename or config.run_dir}; free some, then continue the run or start again"
        _rejected.append(UserError(full))
        return math.nan
    except Exception as error:
        sweep.record_failure(Path(config.run_dir), config, error)
        raise


def main() -> None:
    """Console script ``busi-train``.

    Exit code 0; 1 for a bug or a failed job of a sweep; 2 for a wrong input; 128 + N after signal N.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _entered.clear()
    _rejected.clear()
    with exit_on_user_error():
        try:
            with hydra_errors(lambda: bool(_entered) or sweep.is_running()):
                _write_into_resumed_run()
                _job()
        except BaseException as stopped:
            if (signum := getattr(stopped, "signum", None)) is None:
                raise
            sys.exit(128 + signum)
        if _rejected:
            raise _rejected[0]
        sys.exit(sweep.conclude())


def _write_into_resumed_run() -> None:
    """Let Hydra put its files into the run that ``resume`` names, once it is known to be one."""
    given = [item for item in sys.argv[1:] if item.lstrip("+").startswith("resume=")]
    if not given or any(item.startswith("hydra.run.dir=") for item in sys.argv):
        return
    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
    except HydraException as error:
        raise UserError(advice(given[-1], error)) from None
    if value is not None:
        check_resumable(Path(str(value)))
        sys.argv.append(f"hydra.run.dir={quoted(Path(str(value)).absolute())}")


if __name__ == "__main__":
    main()
