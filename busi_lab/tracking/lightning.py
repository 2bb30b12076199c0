"""Lightning's loggers as trackers: any of them takes metrics, TensorBoard and MLflow take figures and files as well."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from busi_lab.errors import UserError, one_line
from busi_lab.files import read_rows, write_atomically
from busi_lab.run_directory import BEST_CHECKPOINT, PREDICTIONS, SWEEP_VARIABLE
from busi_lab.summary import Summary
from busi_lab.tracking import panels
from busi_lab.tracking.protocol import Job, Result, Settings, Shown, Tracker

log = logging.getLogger(__name__)

_PACKAGES = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow"}
_MLFLOW_ID = "mlflow_run_id"
_MASK_PANEL = (8, 5)  # scans, epochs between two panels
_REPORT_FILES = (".html", ".md", ".csv", ".png")


class LightningTracker(Tracker):
    """One run in a logger of Lightning.

    Args:
        settings: the logger's class as ``_target_``, and its arguments.
        job: what is tracked.

    Raises:
        UserError: the logger cannot be made, or cannot be written to.
    """

    def __init__(self, settings: Settings, job: Job) -> None:
        super().__init__(settings, job)
        self.title = _class_name(settings)
        arguments: dict[str, Any] = dict(settings)
        self._continued = False
        if self.title == "MLFlowLogger":
            path = job.directory / _MLFLOW_ID
            self._continued = path.exists()
            arguments["run_name"] = arguments.get("run_name") or job.name
            if self._continued:
                arguments["run_id"] = path.read_text(encoding="utf-8").strip()
        try:
            from hydra.utils import instantiate

            self._logger = instantiate(arguments)
            self._store = _store(self._logger, self.title)
            self._store.begin(job, self._continued)
        except Exception as error:  # whatever the logger, its client and its server raise
            cause = error.__cause__ or error  # Hydra wraps the logger's own
            raise UserError(f"logger: {self.title} cannot be started: {one_line(cause)[:200]}") from None
        self.mask_panel = _MASK_PANEL if self._store.takes_pictures else None

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Look for the package that the logger needs.

        Raises:
            UserError: it is not installed.
        """
        package = _PACKAGES.get(_class_name(settings))
        if package is not None and find_spec(package) is None:
            raise UserError(
                f"logger={package}: the package {package} is not installed; pip install 'busi-lab[{package}]'"
            )

    @classmethod
    def has_begun(cls, directory: Path) -> bool:
        """Whether the directory has an MLflow run."""
        return (directory / _MLFLOW_ID).exists()

    def start(self, summary: Summary, monitor: str | None, mode: str, metric_names: Sequence[str]) -> None:
        """Send the configuration and what is known before training; a continued run has them already."""
        if not self._continued:
            self._logger.log_hyperparams({**self.job.config, **panels.start_values(summary)})

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Send a row of ``metrics.csv``; the step is the epoch."""
        values = panels.epoch_values(row)
        self._log_metrics({name: value for name, value in values.items() if name != "epoch"}, int(row["epoch"]))

    def masks(self, epoch: int, shown: Shown) -> None:
        """Send validation scans with the outlines of true and predicted masks."""
        from busi_lab.tracking.drawings import mask_sheet

        self._store.picture("val/masks", mask_sheet(shown), epoch)

    def result(self, result: Result) -> None:
        """Send metrics, figures and the table of predictions."""
        step = result.summary.best_epoch or 0
        self._log_metrics(panels.final_values(result.summary), step)
        if not self._store.takes_pictures:
            return
        from busi_lab.tracking.drawings import result_pictures

        for name, picture in result_pictures(result):
            self._store.picture(name, picture)
        if result.rows:
            self._store.table("test/predictions", self.job.directory / PREDICTIONS)
        if self.settings.get("log_model") and self.job.kind == "train":
            self._store.file(self.job.directory / BEST_CHECKPOINT, "model")

    def report(self, out: Path) -> None:
        """Send the table, the plots and the page of a comparison."""
        self._store.report(out)

    def failure(self, error: str) -> None:
        """Send why the job has failed."""
        self._store.text("error", error)

    def finish(self, failed: bool) -> None:
        """End the run, marked failed or not."""
        self._logger.finalize("failed" if failed else "success")

    def _log_metrics(self, values: Mapping[str, Any], step: int) -> None:
        finite = {name: float(value) for name, value in values.items() if value is not None}
        self._logger.log_metrics({name: value for name, value in finite.items() if math.isfinite(value)}, step=step)


def _class_name(settings: Settings) -> str:
    return str(settings.get("_target_", "")).rpartition(".")[2]


class _Store:
    """Where figures, tables and files of a logger go: nowhere, for a logger of metrics alone."""

    takes_pictures = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def begin(self, job: Job, continued: bool) -> None:
        """Note what belongs to the job and is no metric."""

    def picture(self, name: str, picture: Any, step: int | None = None) -> None:
        """Keep a picture, uint8 ``[H, W, 3]``, of an epoch or of the result."""

    def text(self, name: str, text: str) -> None:
        """Keep a text."""

    def table(self, name: str, path: Path) -> None:
        """Keep a CSV file."""

    def file(self, path: Path, folder: str) -> None:
        """Keep any file."""

    def report(self, out: Path) -> None:
        """Keep a comparison."""


class _TensorBoard(_Store):
    takes_pictures = True

    def picture(self, name: str, picture: Any, step: int | None = None) -> None:
        self._logger.experiment.add_image(name, picture, step or 0, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        self._logger.experiment.add_text(name, text)

    def table(self, name: str, path: Path) -> None:
        if rows := read_rows(path):
            lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
            self.text(name, "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines))

    def report(self, out: Path) -> None:
        self.table("report/runs", out / "table.csv")
        for path in sorted(out.glob("*.png")):
            self.picture(f"report/{path.stem}", np.asarray(Image.open(path).convert("RGB")))


class _MLflow(_Store):
    takes_pictures = True

    def begin(self, job: Job, continued: bool) -> None:
        client, run_id = self._logger.experiment, self._logger.run_id
        if continued:
            client.update_run(run_id, status="RUNNING")
        write_atomically(job.directory / _MLFLOW_ID, f"{run_id}\n")
        client.set_tag(run_id, "job_type", job.kind)
        if sweep := os.environ.get(SWEEP_VARIABLE):
            client.set_tag(run_id, "sweep", sweep)

    def picture(self, name: str, picture: Any, step: int | None = None) -> None:
        place = f"{name}.png" if step is None else f"{name}/epoch{step:04}.png"
        self._logger.experiment.log_image(self._logger.run_id, picture, place)

    def text(self, name: str, text: str) -> None:
        self._logger.experiment.set_tag(self._logger.run_id, name, text)

    def table(self, name: str, path: Path) -> None:
        self.file(path, name.rpartition("/")[0])

    def file(self, path: Path, folder: str) -> None:
        self._logger.experiment.log_artifact(self._logger.run_id, str(path), folder)

    def report(self, out: Path) -> None:
        for path in sorted(out.iterdir()):
            if path.is_file() and path.suffix in _REPORT_FILES:
                self.file(path, "report")


def _store(logger: Any, title: str) -> _Store:
    """How a logger takes figures and files; found by what its client can do, so that a subclass works as well."""
    client = getattr(logger, "experiment", None)
    if hasattr(client, "add_image"):
        return _TensorBoard(logger)
    if hasattr(client, "log_artifact") and hasattr(logger, "run_id"):
        return _MLflow(logger)
    log.info("%s is sent metrics alone; figures and files are in the run directory", title)
    return _Store(logger)
