"""Weights & Biases. Nothing here imports its client before a run wants it."""

import atexit
import json
import logging
import math
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from busi_lab.errors import UserError, one_line
from busi_lab.files import read_rows, write_atomically
from busi_lab.report.results.cases import Cases
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import Summary
from busi_lab.tracking import panels
from busi_lab.tracking.mode import LOOK_VARIABLE, choose_mode
from busi_lab.tracking.protocol import Job, Result, Settings, Shown, Tracker
from busi_lab.tracking.settings import WandbSettings, wandb_settings

log = logging.getLogger(__name__)

_ID_FILE = "wandb/id"


class WandbTracker(Tracker):
    """One W&B run of one job; W&B's own files go into the folder ``wandb`` of the job's directory.

    The directory keeps the id, so a job that is continued, or told again from its directory, is the same W&B run:

    - Online it is resumed. What W&B has stays, and only the epochs that it lacks are sent, so that no step goes back
      and no row is there twice; whoever sends a run again sends no panel again.
    - Offline the new folder holds everything, the earlier epochs from ``metrics.csv``, and replaces the earlier
      folders: of several with one id, ``wandb sync`` would keep the last alone. Pictures of validation masks from
      before the cut are lost with them.

    Args:
        settings: key ``wandb`` of the group ``logger``; see :class:`WandbSettings`.
        job: what is tracked.

    Raises:
        UserError: W&B's folder cannot be written, W&B refuses the run, or it is to be online and cannot be.
    """

    title = "W&B"

    def __init__(self, settings: Settings, job: Job) -> None:
        super().__init__(settings, job)
        checked = wandb_settings(settings)
        self.mask_panel = (checked.mask_scans, checked.mask_epochs)
        self._mode = choose_mode(checked, f"'{job.directory}'/wandb/offline-run-*")
        self._log_model = self._mode == "online" if checked.log_model is None else checked.log_model
        folder = job.directory / "wandb"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink()
            identifier = _identifier(job)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written to ({error.strerror}); make it writable or set logger=csv"
            ) from None
        self._run = self._begin(checked, identifier)
        self._first_step = int(getattr(self._run, "starting_step", 0))  # what W&B has lies before it
        self._present = set(self._run.summary.keys()) if self._first_step else set()
        self._best: dict[str, str] = {}
        self._rows: list[Mapping[str, Any]] = []
        if self._mode == "offline":
            _remove_earlier(folder, Path(self._run.dir).parent)
        if "error" in self._present:  # of an attempt before
            del self._run.summary["error"]

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Check the settings.

        Raises:
            UserError: an unknown key, or a value that W&B would refuse.
        """
        wandb_settings(settings)

    @classmethod
    def for_sweep(cls, settings: Settings, sweep: Path) -> Mapping[str, str]:
        """Whether all jobs are online, and their group."""
        mode = choose_mode(wandb_settings(settings), f"'{sweep}'/*/wandb/offline-run-*")
        return {"WANDB_MODE": mode, "WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", sweep.name)}

    @classmethod
    def for_sweep_elsewhere(cls, settings: Settings, sweep: Path) -> Mapping[str, str]:
        """The group of all jobs; each looks itself whether it is online."""
        return {LOOK_VARIABLE: "1", "WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", sweep.name)}

    @classmethod
    def has_begun(cls, directory: Path) -> bool:
        """Whether the directory has a W&B run."""
        return (directory / _ID_FILE).exists()

    def _begin(self, settings: WandbSettings, identifier: str) -> Any:
        import wandb

        # A service that another process has started holds the id of a killed run, which could not be continued.
        os.environ.pop("WANDB_SERVICE", None)
        _own_media_folder()
        # artifacts would be staged below the home folder, which may be read-only or full
        os.environ["WANDB_DATA_DIR"] = str(self.job.directory / "wandb")
        arguments: dict[str, Any] = {
            "project": settings.project,
            "entity": settings.entity,
            "group": settings.group or os.environ.get("WANDB_RUN_GROUP"),
            "name": settings.name or self.job.name,
            "tags": settings.tags,
            "notes": settings.notes,
            "job_type": self.job.kind,
            "dir": str(self.job.directory),
            "id": identifier,
            "resume": "allow" if self._mode == "online" else None,
            "config": dict(self.job.config),
            "settings": wandb.Settings(init_timeout=20, console="off", silent=True, save_code=False),
        }
        mode: Any = self._mode
        try:
            return wandb.init(mode=mode, **arguments)
        except wandb.errors.Error as error:
            if mode != "online" or settings.mode == "online":
                raise UserError(f"W&B refuses the run: {one_line(error)[:200]}; see logger.wandb") from None
            log.info("W&B goes on offline: %s", one_line(error)[:120])
            self._mode = "offline"
            return wandb.init(mode="offline", **{**arguments, "resume": None})

    def start(self, summary: Summary, monitor: str | None, mode: str, metric_names: Sequence[str]) -> None:
        """Put all curves over epochs, let summaries hold the best value, and send what is known before training."""
        if monitor is not None:
            self._run.define_metric("epoch", hidden=True)
            for namespace in ("train", "val", "optim", "speed"):
                self._run.define_metric(f"{namespace}/*", step_metric="epoch")
            self._best = {f"val/{name}": "max" for name in metric_names}
            self._best |= {"train/loss": "min", "val/loss": "min", monitor: mode}
            for name, best in self._best.items():
                self._run.define_metric(name, step_metric="epoch", summary=best)
        self._run.config.update(panels.start_values(summary), allow_val_change=True)
        if self._mode == "online":
            self._link_dataset(summary)

    def _link_dataset(self, summary: Summary) -> None:
        """Name the dataset as an input of the run: its name and digest alone, no scan is sent.

        W&B's client links inputs online alone; an offline run has the digest in its configuration.
        """
        import wandb

        name, digest = summary.data.name, summary.data.digest
        if not name or not digest:
            return
        record = {"name": name, "digest": digest}
        slug = re.sub(r"[^A-Za-z0-9_.-]", "_", str(name))
        try:
            artifact = wandb.Artifact(f"dataset-{slug}", type="dataset", metadata=record)
            with artifact.new_file("dataset.json") as file:
                file.write(json.dumps(record))
            self._run.use_artifact(artifact)
        except Exception as error:  # a service without artifacts, or one that refuses them, still takes the run
            log.info("W&B does not link the dataset: %s", one_line(error)[:120])

    def earlier(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the epochs that W&B lacks."""
        for row in rows:
            self.epoch(row)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Send a row of ``metrics.csv``, unless W&B has it; the step is the epoch."""
        self._rows.append(panels.epoch_values(row))
        if (step := int(row["epoch"])) >= self._first_step:
            self._run.log(self._rows[-1], step=step, commit=True)

    def masks(self, epoch: int, shown: Shown) -> None:
        """Send validation scans with true and predicted masks, before the epoch's row completes the step."""
        if epoch < self._first_step:
            return
        import wandb

        panel = [_masked(wandb, picture, truth, mask, case_id) for case_id, picture, truth, mask in shown]
        self._run.log({"val/masks": panel, "epoch": epoch}, step=epoch)

    def result(self, result: Result) -> None:
        """Send metrics, the table of predictions, figures, masks, explanations and, where wanted, the weights."""
        import wandb

        values, rows = panels.final_values(result.summary), result.rows
        self._run.summary.update(values)
        shown: dict[str, Any] = {"test/predictions": _table(wandb, rows, result.pictures)} if rows else {}
        if (cases := panels.cases_of(result)) is not None:
            if cases.probabilities is not None:
                shown |= _classification_panels(wandb, cases, result.pictures)
            if result.predicted_masks and result.pictures:
                shown |= _mask_panels(wandb, result, cases)
            if result.explanations and result.explanations.is_dir() and result.pictures:
                shown |= _explanations(wandb, result, cases, result.explanations)
        if shown := {key: panel for key, panel in shown.items() if not self._has(key)}:
            self._run.log(shown)
        if self._log_model and self._mode != "disabled" and self.job.kind == "train":
            artifact = wandb.Artifact(f"model-{self._run.id}", type="model", metadata=dict(values))
            artifact.add_file(str(self.job.directory / BEST_CHECKPOINT), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact, aliases=["best"])

    def _has(self, panel: str) -> bool:
        """Whether W&B has a panel; a chart's key is that of its table."""
        return bool({panel, f"{panel}_table"} & self._present)

    def report(self, out: Path) -> None:
        """Send the table, the plots and the page of a comparison."""
        import wandb

        shown: dict[str, Any] = {f"report/{path.stem}": wandb.Image(str(path)) for path in sorted(out.glob("*.png"))}
        if rows := read_rows(out / "table.csv"):
            data = [list(row.values()) for row in rows]
            shown["report/runs"] = wandb.Table(columns=[*rows[0]], data=data)
        if (page := out / "report.html").exists():
            shown["report/page"] = wandb.Html(str(page), inject=False)
        self._run.log(shown)

    def failure(self, error: str) -> None:
        """Send why the job has failed, and alert whoever wants to know, as the account's settings say."""
        self._run.summary["error"] = error
        if self._mode == "online" and self.job.live:  # offline it would come when nobody is in time
            self._run.alert(f"{self._run.name} has failed"[:63], error, level="ERROR")

    def finish(self, failed: bool) -> None:
        """End the run, marked failed or not; the next job must not go on in it."""
        try:
            if self._first_step:
                self._summarize_all()
        finally:
            self._run.finish(exit_code=1 if failed else 0)

    def _summarize_all(self) -> None:
        """Let the summary of a resumed run hold the best of all epochs: the client knows those since then alone."""
        for name, best in self._best.items():
            values = [row[name] for row in self._rows if math.isfinite(row.get(name, math.nan))]
            if values:
                self._run.summary[name] = {best: max(values) if best == "max" else min(values)}

    @property
    def record(self) -> dict[str, Any]:
        """Its id and group, and where it is."""
        record: dict[str, Any] = {"id": self._run.id, "group": self._run.group or None}
        if self._mode == "online":
            return {**record, "url": self._run.url}
        return {**record, "directory": "wandb"}


TRACKER = WandbTracker


def _identifier(job: Job) -> str:
    """The id that the run directory keeps: a continued run is the same W&B run."""
    path = job.directory / _ID_FILE
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    # A W&B agent gives an id for the one run that it starts.
    given = os.environ.get("WANDB_RUN_ID") if job.kind == "train" and job.live else None
    identifier = given or secrets.token_hex(4)
    write_atomically(path, identifier + "\n")
    return identifier


_media_owner: list[int] = []


def _own_media_folder() -> None:
    """Give this process a folder of its own for pictures and tables that are to be sent.

    The client makes that folder when it is imported. Jobs of a sweep are forked from a process that has imported it,
    so they would share one folder, and the first job that ends would remove it from under the others.
    """
    private: Any = sys.modules.get("wandb.sdk.data_types._private")
    if private is None or _media_owner == [os.getpid()]:
        return
    _media_owner[:] = [os.getpid()]
    private.MEDIA_TMP._finalizer.detach()  # whoever imported the client removes that one
    own = tempfile.mkdtemp("wandb-media")
    private.MEDIA_TMP.name = own  # the same object: other files of the client have it under names of their own
    atexit.register(shutil.rmtree, own, ignore_errors=True)


def _remove_earlier(folder: Path, kept: Path) -> None:
    """Remove the offline folders of earlier attempts: all have the same id."""
    for path in folder.glob("offline-run-*"):
        if path.resolve() != kept.resolve():
            shutil.rmtree(path, ignore_errors=True)


def _table(wandb: Any, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any]) -> Any:
    if not pictures:
        return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    columns = ["scan", *(rows[0] if rows else ())]
    data = [[wandb.Image(pictures[row["image"]], file_type="jpg"), *row.values()] for row in rows]
    return wandb.Table(columns=columns, data=data)


def _masked(wandb: Any, picture: Any, truth: Any, predicted: Any, caption: str) -> Any:
    """A scan with two masks that the page can switch on and off."""
    height, width = picture.shape
    fitted = Image.fromarray(predicted.astype("uint8")).resize((width, height), Image.Resampling.NEAREST)
    masks = {"truth": truth, "prediction": np.asarray(fitted)}
    labels = {0: "background", 1: "lesion"}
    return wandb.Image(
        picture,
        masks={name: {"mask_data": mask, "class_labels": labels} for name, mask in masks.items()},
        caption=caption,
    )


def _mask_panels(wandb: Any, result: Result, cases: Cases) -> dict[str, Any]:
    """The scans with the lowest, the middle and the highest Dice."""
    return {
        f"test/masks_{name}": [
            _masked(
                wandb,
                result.pictures[image],
                result.true_masks[image],
                result.predicted_masks[image],
                caption,
            )
            for image, caption in chosen
        ]
        for name, chosen in panels.mask_cases(cases).items()
    }


def _classification_panels(wandb: Any, cases: Cases, pictures: Mapping[str, Any]) -> dict[str, Any]:
    """Confusion matrix, ROC and precision-recall curves, and the most confident mistakes."""
    shown = {
        "test/confusion_matrix": wandb.plot.confusion_matrix(
            y_true=cases.actual.tolist(),
            preds=cases.predicted.tolist(),
            class_names=list(cases.classes.names),
            title="Test: actual and predicted",
        )
    }
    for key, lines in panels.curves(cases).items():  # wandb.plot.roc_curve would need scikit-learn
        title, x_name, _ = panels.CURVES[key]
        shown[f"test/{key}"] = wandb.plot.line_series(
            xs=[x for x, _ in lines.values()],
            ys=[y for _, y in lines.values()],
            keys=list(lines),
            title=title,
            xname=x_name,
        )
    if pictures:
        shown["test/worst_mistakes"] = [
            wandb.Image(pictures[image], caption=caption, file_type="jpg")
            for image, caption in panels.worst_mistakes(cases)
        ]
    return shown


def _explanations(wandb: Any, result: Result, cases: Cases, folder: Path) -> dict[str, list[Any]]:
    """Maps of what speaks for the predicted class, a panel for each method."""
    from busi_lab.report.figures.overlay import draw_heat  # brings OpenCV

    found: dict[str, list[Any]] = {}
    for method in sorted(path.name for path in folder.iterdir()):
        found[f"test/{method}"] = []
        for image, caption in panels.explained_cases(cases):
            heat = np.asarray(Image.open(folder / method / f"{image}.png")) / 255
            found[f"test/{method}"].append(wandb.Image(draw_heat(result.pictures[image], heat, None), caption=caption))
    return found
