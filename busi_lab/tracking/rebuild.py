"""Runs told again to W&B, whole, from their directories alone. Imports no torch."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from busi_lab.data.index import read_case
from busi_lab.data.layouts import list_cases
from busi_lab.data.masks import read_mask
from busi_lab.data.options import recorded_options
from busi_lab.data.resizing import resize_mask, resize_scan
from busi_lab.data.scan import UnreadableImageError
from busi_lab.errors import UserError, one_line
from busi_lab.files import read_rows
from busi_lab.locks import locked
from busi_lab.plurals import counted
from busi_lab.run_directory import (
    CONFIG,
    EXPLANATIONS,
    MASKS,
    METRICS,
    PREDICTIONS,
    SPLIT,
    SWEEP_VARIABLE,
    find_run_directories,
    quoted,
)
from busi_lab.summary import SUMMARY, DataRecord, Objective, SplitRecord, Summary, read_summary
from busi_lab.tracking.mode import choose_mode
from busi_lab.tracking.protocol import Job, Result
from busi_lab.tracking.settings import WandbSettings, wandb_settings
from busi_lab.tracking.trackers import variables_set
from busi_lab.tracking.wandb import WandbTracker

_OF_THE_RUN = ("project", "entity", "group", "name", "tags", "notes", "log_model")  # settings; mode is this machine's
_NUMBERS = ("dice", "dice_refined", "iou", "hd95", "hd95_pixels", "hd95_mm")
_WHOLE_NUMBERS = ("lesion_pixels", "predicted_pixels", "pixels")


@dataclass
class Sent:
    """What became of the runs that were to be sent: names of W&B's projects, and directories with their reasons."""

    mode: str
    sent: list[Path] = field(default_factory=list)
    projects: list[str] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    without_scans: list[Path] = field(default_factory=list)


def send_runs(folders: Sequence[Path], project: str | None = None) -> Sent:
    """Send all runs and evaluations at or below some folders to W&B, each under its own id.

    Finished runs become finished W&B runs; failed ones, and those that were cut, become failed ones with what there
    is. A run that another process is writing is left to it. One that cannot be sent does not stop the others.

    Args:
        folders: run directories, or folders of them.
        project: W&B project of all; None for that of each run's configuration.

    Raises:
        UserError: a folder does not exist, or W&B's settings are of no use here.
    """
    directories = [
        folder
        for folder in find_run_directories(folders, (SUMMARY, SPLIT))
        if (folder / SUMMARY).exists() or ((folder / CONFIG).exists() and "wandb" not in folder.parts[-3:])
    ]  # a saved split alone is no run, nor are the copies that W&B keeps
    mode = choose_mode(wandb_settings({"project": project} if project else {}), _offline_folders(folders))
    found = Sent(mode)
    with variables_set(
        {"WANDB_MODE": mode, SWEEP_VARIABLE: "sent again"}
    ):  # so that no run looks for the service again
        for directory in directories:
            try:
                with locked(directory):
                    _send(directory, project, found)
            except Exception as error:  # noqa: PERF203  # whatever a damaged directory, client and service raise
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                found.failed[directory] = f"{kind}{one_line(error)[:200]}"
    return found


def describe(found: Sent, folders: Sequence[Path]) -> str:
    """What became of the runs, a line each for what is to be said."""
    count = f"{len(found.sent)} run{'' if len(found.sent) == 1 else 's'}"
    lines = [f"W&B: {directory} was not sent: {reason}" for directory, reason in found.failed.items()]
    if found.without_scans:
        lines.append(
            f"W&B: the scans of {len(found.without_scans)} of them are not at hand (data.root), so their panels of "
            "pictures were left out"
        )
    if found.mode == "online":
        lines.append(f"W&B: {count} sent to {', '.join(dict.fromkeys(found.projects)) or 'no project'}")
    else:
        lines.append(f"W&B is offline: {count} written; send them later with: {sync_command(folders)}")
    return "\n".join(lines)


def sync_command(folders: Sequence[Path]) -> str:
    """The command that sends all offline runs below some folders."""
    return f"find {_offline_folders(folders)} -exec wandb sync {{}} +"


def _offline_folders(folders: Sequence[Path]) -> str:
    listed = " ".join(f"'{folder}'" for folder in folders)
    return f"{listed} -type d -name 'offline-run-*'"


def _send(directory: Path, project: str | None, found: Sent) -> None:
    """Tell W&B of one run what it was told, or should have been, while the run went on."""
    config = _read_config(directory)
    summary, ended = _read_summary(directory, config)
    settings = _settings(config, directory, summary, project)
    rows = read_rows(directory / METRICS)
    result = _result(directory, config, summary) if summary.status == "finished" else None
    kind, name = ("eval", f"on-{summary.data.name}") if summary.source else ("train", f"seed{summary.seed}")
    job = Job(directory, f"{summary.experiment or directory.name}-{name}", kind, config, live=False)
    tracker = WandbTracker(settings, job)
    failed = True
    try:
        if kind == "train" and rows:
            monitor, mode = summary.objective.metric or "val/loss", summary.objective.mode or "min"
            tracker.start(summary, monitor, mode, _metric_names(rows))
            tracker.earlier(rows)
        else:
            tracker.start(summary, None, "max", ())
        if result is not None:
            tracker.result(result)
            failed = False
        else:
            tracker.failure(summary.error or ended)
    finally:
        tracker.finish(failed)
    found.sent.append(directory)
    found.projects.append(str(settings["project"]))
    if result is not None and result.rows and not result.pictures:
        found.without_scans.append(directory)


def _read_config(directory: Path) -> dict[str, Any]:
    """The resolved configuration; empty for a run that failed before it was written."""
    path = directory / CONFIG
    if not path.exists():
        return {}
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)[:120]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration of a run: expected keys and values")
    return {str(key): value for key, value in content.items()}


def _read_summary(directory: Path, config: Mapping[str, Any]) -> tuple[Summary, str]:
    """The summary of a run, or what else is known of one that was cut; and how that is said."""
    if (directory / SUMMARY).exists():
        return read_summary(directory), "failed"
    epochs = len(read_rows(directory / METRICS))
    words = f"cut after {counted(epochs, 'epoch')}; busi-train resume={quoted(directory)} continues it"
    model, task = config.get("model") or {}, config.get("task") or {}
    split: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        split = json.loads((directory / SPLIT).read_text(encoding="utf-8"))
    summary = Summary(
        "failed",
        error=words,
        experiment=config.get("name") or model.get("backbone") or model.get("name"),
        seed=config.get("seed"),
        epochs=epochs,
        split=SplitRecord(digest=split.get("digest")),
        objective=Objective(task.get("monitor") or "val/loss", task.get("monitor_mode") or "min"),
    )
    return summary, words


def _settings(config: Mapping[str, Any], directory: Path, summary: Summary, project: str | None) -> dict[str, Any]:
    """Settings of W&B: those that the run was begun with, but for whether this machine is online."""
    own = (config.get("logger") or {}).get("wandb") or {}
    settings = {key: own[key] for key in _OF_THE_RUN if key in own}
    settings["project"] = project or settings.get("project") or WandbSettings.project
    sweep = directory.parent.name if (directory.parent / "multirun.yaml").exists() else None
    settings["group"] = settings.get("group") or (summary.wandb or {}).get("group") or sweep
    return settings


def _metric_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    columns = dict.fromkeys(key for row in rows for key in row)
    return [key.removeprefix("val/") for key in columns if key.startswith("val/") and key != "val/loss"]


def _result(directory: Path, config: Mapping[str, Any], summary: Summary) -> Result:
    """What a finished run has found; without pictures where its scans are not at hand."""
    probabilities = {f"p_{name}" for name in summary.data.roles.names}
    rows = [_typed(row, probabilities) for row in read_rows(directory / PREDICTIONS)]
    names = [row["image"] for row in rows]
    pictures, true_masks = _scans(summary.data, (config.get("data") or {}).get("image_size"), names)
    masks = {}
    for name in names:
        with suppress(OSError, UnreadableImageError):
            masks[name] = read_mask(directory / MASKS / f"{name}.png")
    whole = len(masks) == len(rows) and bool(rows) and "dice" in rows[0]
    return Result(summary, rows, pictures, true_masks, masks if whole else {}, directory / EXPLANATIONS)


def _typed(row: Mapping[str, str], probabilities: Collection[str]) -> dict[str, Any]:
    """A row of ``predictions.csv`` with its numbers as numbers."""

    def value(name: str, cell: str) -> Any:
        if name in _WHOLE_NUMBERS:
            return int(float(cell)) if cell else None
        if name in _NUMBERS or name in probabilities:
            return float(cell) if cell else None
        return cell

    return {name: value(name, cell) for name, cell in row.items()}


def _scans(data: DataRecord, size: Any, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scans and true masks of some cases as the run's trackers saw them; none where one of them cannot be read."""
    folder = Path(str(data.root))
    if not data.root or not folder.is_dir() or not isinstance(size, int):
        return {}, {}
    pictures, masks = {}, {}
    try:
        cases = {case.case_id: case for case in list_cases(folder, recorded_options(data))[0]}
        for name in names:
            scan, mask = read_case(folder, cases[name])
            pictures[name], masks[name] = resize_scan(scan, size), resize_mask(mask, size).astype(np.uint8)
    except (UserError, OSError, KeyError):
        return {}, {}
    return pictures, masks
