"""Weights & Biases: a view of a run, never its record. Nothing here imports wandb before a run wants it."""

import base64
import http.client
import json
import logging
import netrc
import os
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from busi_lab.errors import UserError, one_line
from busi_lab.run_directory import CLASSES, SWEEP_VARIABLE, Summary, read_rows, write_atomically

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0
_ID_FILE = "wandb/id"
_CASES = 8  # scans in a panel of test cases
_MODES = ("auto", "online", "offline", "disabled")


@dataclass
class WandbSettings:
    """Key ``wandb`` of the group ``logger``.

    Attributes:
        project: W&B project.
        entity: user or team, None for the account's default.
        group: groups runs; None for the sweep's name.
        name: of the run; None for the experiment's with its seed.
        tags: at most 64 characters each.
        notes: free text.
        mode: ``auto`` is online where an API key is configured and the server answers, else offline.
        log_model: store ``best.ckpt`` as an artifact; None for only when online.
        mask_epochs: epochs between two panels of validation scans with their masks.
        mask_scans: scans in such a panel.
    """

    project: str = "busi-lab"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: str = "auto"
    log_model: bool | None = None
    mask_epochs: int = 5
    mask_scans: int = 8


def wandb_settings(loggers: Mapping[str, Any] | DictConfig) -> WandbSettings | None:
    """Check the settings of W&B; None where it is not wanted.

    Raises:
        UserError: an unknown key, or a value that W&B would refuse.
    """
    plain: Any = OmegaConf.to_container(loggers, resolve=True) if isinstance(loggers, DictConfig) else loggers
    group = plain.get("wandb")
    if group is None:
        return None
    known = [item.name for item in fields(WandbSettings)]
    if unknown := [key for key in group if key not in known]:
        raise UserError(f"logger.wandb.{unknown[0]}: unknown key; known keys: {', '.join(known)}")
    settings = WandbSettings(**group)
    if settings.mode not in _MODES:
        raise UserError(f"logger.wandb.mode={settings.mode}: expected {', '.join(_MODES)}")
    for key in ("project", "entity", "group", "name"):
        value = getattr(settings, key)
        forbidden = r"[/\\#?%:]" if key in ("project", "entity") else r"[\x00-\x1f]"
        if value is None and key != "project":
            continue
        if not isinstance(value, str) or not value or len(value) > 128 or re.search(forbidden, value):
            raise UserError(
                f"logger.wandb.{key}={value!r}: W&B takes 1 to 128 characters"
                + (r" without / \ # ? % :" if key in ("project", "entity") else "")
            )
    for key in ("mask_epochs", "mask_scans"):
        if not isinstance(getattr(settings, key), int) or getattr(settings, key) < 1:
            raise UserError(f"logger.wandb.{key}={getattr(settings, key)}: expected a whole number of at least 1")
    if not isinstance(settings.tags, list):
        raise UserError(f"logger.wandb.tags={settings.tags!r}: expected a list, as in logger.wandb.tags=[first,second]")
    for tag in settings.tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= 64:
            raise UserError(f"logger.wandb.tags: W&B takes tags of 1 to 64 characters, found {tag!r}")
    return settings


def choose_mode(settings: WandbSettings, sync: str) -> str:
    """Decide once whether W&B is online, and say so in one line.

    Args:
        settings: checked settings.
        sync: path, or pattern, of the offline runs for the command that sends them later.

    Raises:
        UserError: ``mode=online`` was asked for and cannot be.
    """
    wanted = os.environ.get("WANDB_MODE", "auto") if settings.mode == "auto" else settings.mode
    wanted = {"dryrun": "offline", "run": "auto"}.get(wanted, wanted)
    if wanted in ("offline", "disabled"):
        if wanted == "offline" and SWEEP_VARIABLE not in os.environ:
            log.info("W&B is offline; send it later with: wandb sync %s", sync)
        return wanted
    if wanted == "online" and SWEEP_VARIABLE in os.environ:
        return "online"  # the sweep has looked
    obstacle = _obstacle()
    if obstacle is None:
        log.info("W&B is online at %s, project %s", _base_url(), settings.project)
        return "online"
    if settings.mode == "online":
        raise UserError(f"logger.wandb.mode=online: {obstacle}; mend that, or set logger.wandb.mode=offline")
    log.info("W&B is offline: %s; send it later with: wandb sync %s", obstacle, sync)
    return "offline"


def _base_url() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def _obstacle() -> str | None:
    """Why W&B cannot be online, found within seconds and without a prompt; None where it can."""
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    url = _base_url()
    key = os.environ.get("WANDB_API_KEY") or _netrc_key(urlparse(url).hostname or "")
    if not key:
        return "no API key is configured (wandb login sets one)"
    token = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
    query = json.dumps({"query": "query { viewer { id } }"}).encode()
    try:
        request = urllib.request.Request(f"{url}/graphql", data=query, headers=headers)
        with urllib.request.urlopen(request, timeout=_PROBE_SECONDS) as response:
            answer = json.loads(response.read(1 << 20))
        viewer = answer.get("data", {}).get("viewer") if isinstance(answer, dict) else None
        return None if viewer else f"{url} does not know the API key"
    except urllib.error.HTTPError as error:
        return f"{url} refuses the API key (HTTP {error.code})" if error.code in (401, 403) else f"{url}: {error}"
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
        return f"{url} does not answer ({one_line(error)[:80]})"


def _netrc_key(host: str) -> str | None:
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


class WandbRun:
    """One W&B run of one job.

    Args:
        settings: checked settings.
        mode: online, offline or disabled.
        directory: the run directory; W&B's own files go into its ``wandb`` folder.
        name: of the run where the settings have none.
        job_type: train, eval or report.
        config: the resolved configuration.

    Raises:
        UserError: W&B's folder cannot be written, or W&B refuses the run.
    """

    def __init__(
        self,
        settings: WandbSettings,
        mode: str,
        directory: Path,
        name: str,
        job_type: str,
        config: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self._directory = directory
        self._log_model = mode == "online" if settings.log_model is None else settings.log_model
        self._mode = mode
        self._broken = False
        folder = directory / "wandb"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink()
            identifier = self._identifier(job_type)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written to ({error.strerror}); make it writable or set logger=csv"
            ) from None
        self._run = self._start(settings, mode, name, job_type, config, identifier)

    def _identifier(self, job_type: str) -> str:
        """The id that the run directory keeps: a continued run is the same W&B run."""
        path = self._directory / _ID_FILE
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
        given = os.environ.get("WANDB_RUN_ID") if job_type == "train" else None  # by a W&B agent, for one run
        identifier = given or secrets.token_hex(4)
        write_atomically(path, identifier + "\n")
        return identifier

    def _start(
        self,
        settings: WandbSettings,
        mode: Any,
        name: str,
        job_type: str,
        config: Mapping[str, Any],
        identifier: str,
    ) -> Any:
        import wandb

        # artifacts would be staged below the home folder, which may be read-only or full
        os.environ["WANDB_DATA_DIR"] = str(self._directory / "wandb")
        arguments: dict[str, Any] = {
            "project": settings.project,
            "entity": settings.entity,
            "group": settings.group or os.environ.get("WANDB_RUN_GROUP"),
            "name": settings.name or name,
            "tags": settings.tags,
            "notes": settings.notes,
            "job_type": job_type,
            "dir": str(self._directory),
            "id": identifier,
            "resume": "allow" if mode == "online" else None,
            "config": dict(config),
            "settings": wandb.Settings(init_timeout=20, console="off", silent=True, save_code=False),
        }
        try:
            return wandb.init(mode=mode, **arguments)
        except wandb.errors.Error as error:
            if mode != "online" or settings.mode == "online":
                raise UserError(f"W&B refuses the run: {one_line(error)[:200]}; see logger.wandb") from None
            log.info("W&B goes on offline: %s", one_line(error)[:120])
            self._mode = "offline"
            return wandb.init(mode="offline", **{**arguments, "resume": None})

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """W&B is a view: when it breaks, the run goes on without it."""
        try:
            yield
        except Exception as error:  # whatever its client and its service raise
            if not self._broken:
                log.warning("W&B is lost (%s: %s); the run goes on", type(error).__name__, one_line(error)[:120])
            self._broken = True

    def define(self, monitor: str, mode: str, metrics: Sequence[str]) -> None:
        """Put all curves over epochs and let summaries hold the best value.

        Args:
            monitor: the metric that chooses the best epoch.
            mode: ``max`` or ``min``.
            metrics: bare names of the task's scalar metrics.
        """
        with self._harmless():
            self._run.define_metric("epoch", hidden=True)
            for namespace in ("train", "val", "optim", "speed"):
                self._run.define_metric(f"{namespace}/*", step_metric="epoch")
            for name in metrics:
                self._run.define_metric(f"val/{name}", step_metric="epoch", summary="max")
            for split in ("train", "val"):
                self._run.define_metric(f"{split}/loss", step_metric="epoch", summary="min")
            self._run.define_metric(monitor, step_metric="epoch", summary=mode)

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Send a row of ``metrics.csv``; the step is the epoch, so that continued runs join."""
        with self._harmless():
            names = {"lr": "optim/lr", "images_per_second": "speed/images_per_second", "seconds": "speed/epoch_seconds"}
            self._run.log({names.get(key, key): value for key, value in row.items()}, step=int(row["epoch"]))

    def log_start(self, summary: Summary) -> None:
        """Send what is known before training."""
        with self._harmless():
            self._run.config.update(
                {
                    "parameters": summary.parameters,
                    "split_digest": summary.split.get("digest"),
                    "test_digest": summary.split.get("test_digest"),
                    "leaked_test_images": summary.split.get("leaked"),
                    "data_digest": summary.data.get("digest"),
                    "images": {split: summary.data.get(split) for split in ("train", "val", "test")},
                },
                allow_val_change=True,
            )

    def log_masks(self, epoch: int, shown: Sequence[tuple[str, Any, Any, Any]]) -> None:
        """Send scans with true and predicted masks.

        Args:
            epoch: that has just been validated.
            shown: case id, scan, true and predicted mask, the last three uint8 ``[S, S]``.
        """
        with self._harmless():
            import wandb

            panel = [_masked(wandb, picture, truth, mask, case_id) for case_id, picture, truth, mask in shown]
            self._run.log({"val/masks": panel, "epoch": epoch}, step=epoch)

    def log_result(
        self,
        summary: Summary,
        rows: Sequence[Mapping[str, Any]],
        pictures: Mapping[str, Any],
        true_masks: Mapping[str, Any],
        predicted_masks: Mapping[str, Any],
    ) -> None:
        """Send the result of a finished run.

        Args:
            summary: of the run.
            rows: of ``predictions.csv``.
            pictures: case id -> scan, uint8 ``[S, S]``.
            true_masks: case id -> mask, uint8 ``[S, S]`` of 0 and 1.
            predicted_masks: case id -> mask, bool ``[H, W]``; empty where none are predicted.
        """
        with self._harmless():
            import wandb

            scalars: dict[str, Any] = {
                name: value for name, value in summary.metrics.items() if isinstance(value, int | float)
            }
            result: dict[str, Any] = {name: value for name, value in scalars.items() if name.startswith("test/")}
            result |= {f"best/{name}": value for name, value in scalars.items() if name.startswith("val/")}
            result |= {"best/epoch": summary.best_epoch, "parameters": summary.parameters}
            result["images_per_second"] = summary.images_per_second
            self._run.summary.update(result)
            panels: dict[str, Any] = {"test/predictions": _table(wandb, rows, pictures)}
            if rows and "prediction" in rows[0]:
                panels |= _classification_panels(wandb, rows, pictures)
            if predicted_masks:
                panels |= _mask_panels(wandb, rows, pictures, true_masks, predicted_masks)
            self._run.log(panels)
            if self._log_model and self._mode != "disabled":
                artifact = wandb.Artifact(f"model-{self._run.id}", type="model", metadata=dict(result))
                artifact.add_file(str(self._directory / "checkpoints/best.ckpt"), policy="immutable", skip_cache=True)
                self._run.log_artifact(artifact, aliases=["best"])

    def log_explanations(self, folder: Path, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any]) -> None:
        """Send maps of what speaks for the predicted class, for the most confident mistakes and right answers.

        Args:
            folder: has a folder of maps for each method; where it does not exist, nothing is sent.
            rows: of ``predictions.csv``.
            pictures: case id -> scan, uint8 ``[S, S]``.
        """
        if not folder.is_dir():
            return
        with self._harmless():
            import wandb

            from busi_lab.report.overlay import draw_heat  # brings OpenCV

            ordered = sorted(rows, key=lambda row: -float(row[f"p_{row['prediction']}"]))
            wrong = [row for row in ordered if row["label"] != row["prediction"]][:_CASES]
            right = [row for row in ordered if row["label"] == row["prediction"]][:_CASES]
            for method in sorted(path.name for path in folder.iterdir()):
                panel = []
                for row in (*wrong, *right):
                    heat = np.asarray(Image.open(folder / method / f"{row['image']}.png")) / 255
                    caption = f"{row['image']}: {row['label']}, predicted {row['prediction']}"
                    panel.append(wandb.Image(draw_heat(pictures[row["image"]], heat, None), caption=caption))
                self._run.log({f"test/{method}": panel})

    def log_report(self, out: Path) -> None:
        """Send the table, the plots and the page of a comparison."""
        with self._harmless():
            import wandb

            panels: dict[str, Any] = {
                f"report/{path.stem}": wandb.Image(str(path)) for path in sorted(out.glob("*.png"))
            }
            if rows := read_rows(out / "table.csv"):
                data = [list(row.values()) for row in rows]
                panels["report/runs"] = wandb.Table(columns=[*rows[0]], data=data)
            if (page := out / "report.html").exists():
                panels["report/page"] = wandb.Html(str(page), inject=False)
            self._run.log(panels)

    def finish(self, failed: bool) -> None:
        """End the run, marked failed or not; the next job must not go on in it."""
        with self._harmless():
            self._run.finish(exit_code=1 if failed else 0)

    @property
    def record(self) -> dict[str, Any]:
        """What ``summary.json`` says of W&B."""
        record: dict[str, Any] = {"id": self._run.id, "group": self._run.group or None}
        if self._mode == "online":
            return {**record, "url": self._run.url}
        return {**record, "directory": "wandb"}


def _table(wandb: Any, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any]) -> Any:
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


def _mask_panels(
    wandb: Any,
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, Any],
    true_masks: Mapping[str, Any],
    predicted_masks: Mapping[str, Any],
) -> dict[str, Any]:
    """The scans with the lowest, the middle and the highest Dice."""
    judged = sorted((row for row in rows if row["dice"] is not None), key=lambda row: float(row["dice"]))
    count = min(_CASES, len(judged))
    middle = (len(judged) - count) // 2
    chosen = {"worst": judged[:count], "median": judged[middle : middle + count], "best": judged[::-1][:count]}
    return {
        f"test/masks_{name}": [
            _masked(
                wandb,
                pictures[row["image"]],
                true_masks[row["image"]],
                predicted_masks[row["image"]],
                f"{row['image']}: Dice {float(row['dice']):.3f}",
            )
            for row in cases
        ]
        for name, cases in chosen.items()
        if cases
    }


def _classification_panels(
    wandb: Any, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any]
) -> dict[str, Any]:
    """Confusion matrix, ROC and precision-recall curves, and the most confident mistakes."""
    labels = [CLASSES.index(row["label"]) for row in rows]
    predicted = [CLASSES.index(row["prediction"]) for row in rows]
    panels = {
        "test/confusion_matrix": wandb.plot.confusion_matrix(
            y_true=labels, preds=predicted, class_names=list(CLASSES), title="Test: actual and predicted"
        )
    }
    # wandb.plot.roc_curve would need scikit-learn
    curves = {name: _curves(rows, name) for name in CLASSES if any(row["label"] == name for row in rows)}
    for number, (key, x_name) in enumerate((("roc", "false positive rate"), ("pr", "recall"))):
        panels[f"test/{key}"] = wandb.plot.line_series(
            xs=[curve[number][0] for curve in curves.values()],
            ys=[curve[number][1] for curve in curves.values()],
            keys=list(curves),
            title="ROC, each class against the rest" if key == "roc" else "Precision over recall, each class",
            xname=x_name,
        )
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    wrong.sort(key=lambda row: -float(row[f"p_{row['prediction']}"]))
    panels["test/worst_mistakes"] = [
        wandb.Image(
            pictures[row["image"]],
            caption=f"{row['image']}: {row['label']}, taken for {row['prediction']} "
            f"({float(row['p_' + row['prediction']]):.2f})",
            file_type="jpg",
        )
        for row in wrong[:16]
    ]
    return panels


def _curves(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[list[float], list[float]]]:
    """Points of the ROC curve and of the precision-recall curve of one class against the rest."""
    ordered = sorted(rows, key=lambda row: -float(row[f"p_{name}"]))
    positives = sum(row["label"] == name for row in rows)
    negatives = max(1, len(rows) - positives)
    roc: tuple[list[float], list[float]] = ([0.0], [0.0])
    recall: tuple[list[float], list[float]] = ([0.0], [1.0])
    hits = 0
    for count, row in enumerate(ordered, start=1):
        hits += row["label"] == name
        if count < len(ordered) and ordered[count][f"p_{name}"] == row[f"p_{name}"]:
            continue  # equal scores share a threshold
        roc[0].append((count - hits) / negatives)
        roc[1].append(hits / positives)
        recall[0].append(hits / positives)
        recall[1].append(hits / count)
    return [roc, recall]


def publish_report(settings: WandbSettings, mode: str, out: Path, name: str) -> None:
    """Send a comparison, as ``busi-compare`` wrote it into ``out``, to W&B as one run of job type report.

    Raises:
        UserError: as :class:`WandbRun`.
    """
    run = WandbRun(settings, mode, out, name, "report", {})
    try:
        run.log_report(out)
    finally:
        run.finish(failed=False)


def record_failed_run(settings: WandbSettings, directory: Path, config: Mapping[str, Any], error: str) -> None:
    """Leave a failed W&B run for a sweep's job that could not start."""
    if (directory / _ID_FILE).exists():
        return  # its run has been ended already
    mode = os.environ.get("WANDB_MODE", "offline")
    run = WandbRun(settings, mode, directory, directory.name, "train", config)
    run._run.summary["error"] = error
    run.finish(failed=True)
