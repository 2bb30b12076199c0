"""Scans with what a run found in them, small enough to travel inside a page."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from busi_lab.data.case_files import CaseFiles
from busi_lab.data.layouts import list_cases
from busi_lab.data.masks import read_mask
from busi_lab.data.options import AS_FOUND, DatasetOptions, recorded_options
from busi_lab.data.reading import read_image
from busi_lab.data.scan import UnreadableImageError
from busi_lab.errors import UserError
from busi_lab.report.figures.overlay import PREDICTED, TRUE, draw_heat, outline, resized
from busi_lab.report.results.examples import Example
from busi_lab.run_directory import EXPLANATIONS, MASKS, Run

_THUMBNAIL = 240  # pixels, the longer side


@dataclass(frozen=True)
class Picture:
    """An example with its scan as a data URI, or None where the file is not to be had."""

    example: Example
    uri: str | None
    predicted: bool  # with the outline of the predicted mask
    maps: tuple[tuple[str, str], ...] = ()  # method and data URI of each map of what speaks for the predicted class


def pictures_of(run: Run, examples: Sequence[Example], explained: Sequence[Run]) -> tuple[Picture, ...]:
    """A picture of each example.

    Args:
        run: that has predicted the images.
        examples: of its test images.
        explained: the run, and evaluations of it, which may hold maps of what speaks for a class.
    """
    root = dataset_of(run)
    files = _files(root, recorded_options(run.summary.data)) if root else {}
    return tuple(_picture(root, files.get(example.image), run, example, explained) for example in examples)


def dataset_of(run: Run) -> Path | None:
    """The folder of the scans that a run was tested on; None where it is not recorded, or no longer there."""
    root = run.summary.data.root
    try:
        return Path(root) if isinstance(root, str) and root and Path(root).is_dir() else None
    except (OSError, ValueError):
        return None


def _files(root: Path, options: DatasetOptions = AS_FOUND) -> dict[str, CaseFiles]:
    try:
        return {case.case_id: case for case in list_cases(root, options)[0]}
    except (UserError, OSError):
        return {}


def _picture(
    root: Path | None, case: CaseFiles | None, run: Run, example: Example, explained: Sequence[Run] = ()
) -> Picture:
    """The scan as a small JPEG with the true lesions and, where ``run`` has a mask of it, the predicted outlined.

    Beside it stand the maps that those ``explained`` have of it, one for each method.
    """
    nothing = Picture(example, None, False)
    if root is None or case is None:
        return nothing
    try:
        pixels = read_image(root / case.image)
        lesion = np.zeros(pixels.shape, np.bool_)
        for name in case.masks:
            lesion |= resized(read_mask(root / name, run.summary.data.lesion_values), pixels.shape)
    except (UnreadableImageError, OSError, ValueError):
        return nothing
    picture = Image.fromarray(pixels).convert("RGB")
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    outline(picture, lesion, TRUE)
    predicted = _read(read_mask, run.path / MASKS / f"{example.image}.png")
    if predicted is not None:
        outline(picture, predicted, PREDICTED, dashed=True)
    maps: dict[str, str] = {}
    for folder in sorted(path for each in explained for path in (each.path / EXPLANATIONS).glob("*") if path.is_dir()):
        heat = _read(read_image, folder / f"{example.image}.png")
        if heat is not None:
            small = np.asarray(Image.fromarray(pixels).resize(picture.size))
            maps.setdefault(folder.name, _uri(draw_heat(small, heat / 255, lesion, TRUE)))
    return Picture(example, _uri(picture), predicted is not None, tuple(maps.items()))


def _read(reader: Callable[[Path], Any], path: Path) -> Any:
    try:
        return reader(path)
    except (UnreadableImageError, OSError, ValueError):
        return None


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72, optimize=True, subsampling=0)  # thin lines keep their colour
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
