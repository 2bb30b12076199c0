"""busi-train: fit, validate the best epoch, test; one run, or a sweep with ``-m``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from busi_lab.commandline import Application, command_line
from busi_lab.config import RunConfig, parse_config
from busi_lab.errors import UserError, exit_on_user_error
from busi_lab.run.resume import refuse_occupied, resumed_config, run_directory
from busi_lab.sweep.outcome import conclude, record_failure
from busi_lab.sweep.plan import directory_name, refuse_launcher
from busi_lab.tracking import check_trackers

OmegaConf.register_new_resolver("busi_sweep", directory_name, replace=True)
OmegaConf.register_new_resolver("busi_run", run_directory, replace=True)


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
    for group in ("launcher", "search"):  # are no part of the run's record
        resolved.pop(group, None)
    if resolved.get("resume"):
        resolved = resumed_config(resolved, overrides)
    else:
        resolved.command = command
    parsed = parse_config(resolved)
    check_trackers(parsed.logger)
    if not parsed.resume:
        refuse_occupied(Path(parsed.run_dir))
    from busi_lab.run.fit import run_experiment  # torch and its company take seconds: not for --help

    summary = run_experiment(parsed, resolved)
    return float(summary.metrics[str(summary.objective.metric)])


def _job(config: DictConfig) -> float:
    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # paths are meant from where the command was typed, also under hydra.job.chdir
    if hydra.mode == RunMode.MULTIRUN:  # our launcher's jobs are runs of their own
        refuse_launcher(str(hydra.launcher._target_))
    elif (launcher := OmegaConf.select(config, "launcher.name") or "local") != "local":
        raise UserError(f"launcher={launcher}: it places the jobs of a sweep; add -m, also for one job")
    elif config.get("search") is not None:
        raise UserError("search= is a sweep: add -m, and leave hydra.mode out")
    return train(config, list(hydra.overrides.task), command_line("busi-train", hydra))


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-train``.

    Exit code 0; 1 for a bug or a failed job of a sweep; 2 for a wrong input; 128 + N after signal N.

    Args:
        argv: the command line without the program's name; None for the process's own.
    """
    application = Application(_job, record_failure)
    with exit_on_user_error():
        try:
            application.run("train", RunConfig, argv)
        except BaseException as stopped:
            if (signum := getattr(stopped, "signum", None)) is None:
                raise
            sys.exit(128 + signum)
        if application.rejected:
            raise application.rejected[0]
        sys.exit(0 if application.sweep is None else conclude(application.sweep))


if __name__ == "__main__":
    main()
