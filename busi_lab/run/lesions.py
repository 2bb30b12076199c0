"""``lesions.csv``: each lesion that a run has outlined, how sure it was of it, and whether it is right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from busi_lab.data.datamodule import BusiDataModule
from busi_lab.files import write_rows
from busi_lab.report.results.lesions import RIGHT_IOU
from busi_lab.run_directory import LESIONS
from busi_lab.tasks import BaseTask
from busi_lab.tasks.lesions import OutlinedLesion

Rows = Sequence[Mapping[str, Any]]
_COLUMNS = ("image", "group", "lesion", "pixels", "confidence", "iou", "right")


def lesion_rows(task: BaseTask, data: BusiDataModule, split: str) -> Rows | None:
    """Rows of ``lesions.csv``, by image, the largest lesion first.

    Args:
        task: that has just been judged; in a distributed run every rank must call this.
        data: of it.
        split: val or test.

    Returns:
        None where no lesions were judged, because there are no lesion probabilities or no true masks.
    """
    found = task.outlined_lesions(split)
    if not found:
        return None
    return [
        {"image": image, "group": data.group(image), "lesion": number, **_judged(lesion)}
        for image, lesions in sorted(found.items())
        for number, lesion in enumerate(lesions, start=1)
    ]


def _judged(lesion: OutlinedLesion) -> dict[str, Any]:
    return {**lesion._asdict(), "right": int(lesion.iou >= RIGHT_IOU)}


def write_lesions(directory: Path, rows: Rows | None) -> None:
    """Write ``lesions.csv``, its columns alone where nothing was outlined; no file where no lesions were judged."""
    if rows is not None:
        write_rows(directory / LESIONS, rows, _COLUMNS)
