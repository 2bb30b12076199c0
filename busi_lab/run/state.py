"""The state of a run that was cut: its newest whole checkpoint, and whether it may go on from there."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from busi_lab.tasks import BaseTask
from busi_lab.tasks.checkpoint import SCHEMA, read_checkpoint, with_defaults

log = logging.getLogger(__name__)

DATAMODULE_KEY, LAST_KEY = "BusiDataModule", "LastCheckpoint"
"""Where in a checkpoint Lightning keeps the state of the datamodule and of our callback: by the classes' names."""


class State(NamedTuple):
    """Where a run was cut: its checkpoint, whether nothing was left to fit, and the epoch, counted from 0."""

    checkpoint: Path
    fit_finished: bool
    epoch: int


def find_state(directory: Path, task: BaseTask, split_digest: str, max_epochs: int, origin: str | None = None) -> State:
    """The newest whole checkpoint of a run that is to be continued.

    Args:
        directory: of the run.
        task: as the run's configuration builds it today.
        split_digest: of the manifest that is used today.
        max_epochs: up to which the run is to go on.
        origin: of scans that are not those of the dataset, see ``BusiDataModule.replace_scans``.

    Raises:
        UserError: there is none, it belongs to another model, split, origin or version, or is beyond ``max_epochs``.
    """
    damaged = []
    for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        path = directory / name
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            saved, split = content["hyper_parameters"], content[DATAMODULE_KEY]["split"]
            scans = content[DATAMODULE_KEY].get("origin")
            fit_finished = bool(content["callbacks"][LAST_KEY]["fit_finished"])
        except Exception as error:  # whatever a cut or foreign file makes zipfile and pickle raise
            damaged.append(f"{name} is damaged")
            log.info("%s cannot be read (%s); trying the one before", path, one_line(error)[:80])
            continue
        _check_fits(f"resume={directory}: {name}", content.get("schema"), saved, task)
        if split != split_digest:
            raise UserError(f"resume={directory}: {name} belongs to split {split}, found {split_digest}")
        if scans != origin:
            raise UserError(
                f"resume={directory}: {name} belongs to scans that were cut by data.roi with other weights; put the "
                "run back with which it was begun, or start the run again in a new directory"
            )
        if not fit_finished and content["epoch"] >= max_epochs:
            raise UserError(
                f"trainer.max_epochs={max_epochs}: {directory} is in epoch {content['epoch'] + 1} already; expected at "
                "least that many, or leave it out"
            )
        if fit_finished or content["epoch"] > 0:
            _check_best(directory)
        return State(path, fit_finished, content["epoch"])
    raise UserError(
        f"resume={directory}: no whole checkpoint to continue from ({', '.join(damaged) or 'none is there'}); "
        "start the run again in a new directory"
    )


def _check_best(directory: Path) -> None:
    """The weights of the best epoch so far cannot be made again, so the run has nothing to test without them."""
    try:
        read_checkpoint(directory / BEST_CHECKPOINT)
    except UserError as error:
        raise UserError(
            f"resume={directory}: the weights of its best epoch are lost ({one_line(error).split(';')[0]}); "
            "start the run again in a new directory"
        ) from None


def _check_fits(what: str, schema: Any, saved: dict[str, Any], task: BaseTask) -> None:
    """A checkpoint must be of this version and of the same task; options that came later have their defaults."""
    if schema != SCHEMA:
        raise UserError(f"{what} has schema {schema}, this version {SCHEMA}")
    built = dict(task.hparams)
    built["model"] = {**built["model"], "weights": "none"}
    filled = with_defaults(type(task), saved)
    if differing := [key for key in built if filled.get(key) != built[key]]:
        raise UserError(f"{what} belongs to another {differing[0]}; use the run's own config")
