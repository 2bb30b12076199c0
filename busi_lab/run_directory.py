"""The directory of one run: the names of its files, and how they are written and read.

Everything that compares, resumes or applies a run goes through this module. It imports no torch, so that
reading a hundred runs takes seconds.
"""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busi_lab.errors import UserError
from busi_lab.files import read_rows
from busi_lab.summary import SUMMARY, Summary, is_export, read_summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW_IMAGES = 20
"""Images of a class, or of a part of a test set, below which a figure of theirs says little."""

_CONTRACT = (
    *("image", "label", "group", "near_copy_of", "prediction"),
    *("dice", "iou", "lesion_pixels", "predicted_pixels", "pixels", "hd95", "hd95_pixels", "hd95_mm"),
)  # columns of predictions.csv that have a meaning of their own

CONFIG = "config.yaml"
SPLIT = "split.json"
PACKAGES = "packages.txt"
METRICS = "metrics.csv"
PREDICTIONS = "predictions.csv"
VALIDATION = "validation.csv"
MASKS = "masks"
LESIONS = "lesions.csv"
EXPLANATIONS = "explanations"
FLAGS = "flags.csv"
STRESS = "stress.csv"
SHORTCUTS = "shortcuts.csv"
SOURCE_PREDICTIONS = "source_predictions.csv"
SOURCE_CONFIG = "source_config.yaml"
BEST_CHECKPOINT = "checkpoints/best.ckpt"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PREVIOUS_CHECKPOINT = "checkpoints/previous.ckpt"
PRUNE = "prune"
"""File by which a search asks a run to end after its epoch; it then has the status ``pruned``."""
SWEEP_VARIABLE = "BUSI_LAB_JOB"
"""Environment variable with the sweep's name, set for its jobs."""
LIFELINE_VARIABLE = "BUSI_LAB_LIFELINE"
"""Environment variable with a pipe that ends when the sweep dies, as ``NUMBER:INODE``, set for its jobs."""


def quoted(path: Path) -> str:
    """A path as a value of an override, in quotes where its characters need them."""
    if re.fullmatch(r"[\w./-]+", str(path)):
        return str(path)
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def refuse_result(directory: Path) -> None:
    """Make sure that no run or evaluation has written to a directory.

    Raises:
        UserError: one has.
    """
    if any((directory / name).exists() for name in (CONFIG, SUMMARY)):
        raise UserError(f"{directory} holds a result; choose another hydra.run.dir or remove that folder")


def add_further(row: Mapping[str, Any], further: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A row of predictions with further columns behind it.

    They are called ``labels_NAME`` where the name is one of the contract's, or begins with ``p_`` as probabilities do.
    """
    extended = dict(row)
    for name, value in further:
        while name in extended or name in _CONTRACT or name.startswith("p_"):
            name = f"labels_{name}"
        extended[name] = value
    return extended


def median_speed(rows: Sequence[Mapping[str, str]]) -> float | None:
    """Images per second of the training loop: the median over epochs, the first left out where there are more."""
    speeds = [float(row["images_per_second"]) for row in rows]
    return statistics.median(speeds[1:] or speeds) if speeds else None


def write_masks(folder: Path, masks: "Mapping[str, NDArray[np.bool_]]") -> None:
    """Write masks, bool ``[H, W]`` by case id, as 1-bit PNG files ``CASE_ID.png``; no masks, no folder.

    A case id with slashes, such as ``site1/scan_3``, makes folders.
    """
    from PIL import Image

    for case_id, mask in masks.items():
        path = folder / f"{case_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path, optimize=True)


def write_heat(path: Path, heat: "NDArray[np.float32]") -> None:
    """Write a map ``[H, W]`` of 0 to 1 as a gray PNG of 8 bits, at most 128 pixels wide and high."""
    from PIL import Image

    picture = Image.fromarray((heat * 255).round().astype("uint8"))
    picture.thumbnail((128, 128))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


@dataclass(frozen=True)
class Run:
    """A run directory as read from disk; tables are read when first asked for."""

    path: Path
    summary: Summary

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's where the run has none."""
        return self.summary.experiment or self.path.name

    @cached_property
    def epochs(self) -> list[dict[str, str]]:
        """``metrics.csv``, a row an epoch."""
        return read_rows(self.path / METRICS)

    @cached_property
    def predictions(self) -> list[dict[str, str]]:
        """``predictions.csv``, a row a test image; ValueError where it has not as many as the run has tested."""
        return self._rows(PREDICTIONS, "test")

    @cached_property
    def validation(self) -> list[dict[str, str]]:
        """``validation.csv``, a row a validation image, as :attr:`predictions`."""
        return self._rows(VALIDATION, "val")

    @cached_property
    def lesions(self) -> list[dict[str, str]]:
        """``lesions.csv``, a row a lesion that was outlined on a test image."""
        return read_rows(self.path / LESIONS)

    def _rows(self, name: str, split: str) -> list[dict[str, str]]:
        rows, images = read_rows(self.path / name), getattr(self.summary.data, split)
        if rows and isinstance(images, int) and len(rows) != images:
            raise ValueError(f"{name} has {len(rows)} rows of {images}")
        return rows

    @cached_property
    def source_predictions(self) -> list[dict[str, str]]:
        """``source_predictions.csv`` of an evaluation: what the run predicted on its own test images."""
        return read_rows(self.path / SOURCE_PREDICTIONS)


def read_run(directory: Path) -> Run:
    """Read the run in ``directory``.

    Raises:
        UserError: as :func:`read_summary`.
    """
    return Run(directory, read_summary(directory))


def find_run_directories(folders: Iterable[Path], names: Sequence[str] = (SUMMARY,)) -> list[Path]:
    """All folders at or below ``folders`` that hold a ``summary.json``, sorted, each once; no exported runs.

    Args:
        folders: run directories, or folders of them.
        names: of files, one of which a run must hold; with ``split.json`` also runs that were cut are found.

    Raises:
        UserError: a folder does not exist.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give run directories or a folder of them")
        found.update(path.parent.resolve() for name in names for path in folder.rglob(name))
    return sorted(path for path in found if not is_export(path))


def finished_runs(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    """The runs that ``paths`` mean, in full, so that one given twice is known; of a folder the finished ones.

    An exported run is given by its own directory.

    Raises:
        UserError: no such folder, or one without a finished run.
    """
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, Path | str) else paths):
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; give the directory of a finished run, or a folder of them")
        if (path / SUMMARY).exists() or is_export(path):
            found.append(path.resolve())
            continue
        summaries = {item: read_summary(item) for item in find_run_directories([path])}
        finished = [
            item for item, summary in summaries.items() if summary.status == "finished" and summary.source is None
        ]
        if not finished:
            raise UserError(f"{path} holds no finished run (a folder with {SUMMARY}); give the directory of one")
        found += finished
    return found
