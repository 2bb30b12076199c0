"""Scans that the best run of a table got wrong or right, small enough to travel inside a page."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from busi_lab.data.layout import CaseFiles, list_files
from busi_lab.data.reading import read_image, read_mask
from busi_lab.data.scan import UnreadableImageError
from busi_lab.report.overlay import PREDICTED, TRUE, draw_heat, outline, resized
from busi_lab.report.predictions import (
    Example,
    dice_examples,
    false_alarms,
    read_masks,
    read_predictions,
    wrong_classes,
)
from busi_lab.report.tables import Table
from busi_lab.run_directory import EXPLANATIONS, MASKS, Run

MISTAKES_SHOWN = 8
WORST_SHOWN = 4
MIDDLE_SHOWN = BEST_SHOWN = FALSE_ALARMS_SHOWN = 2
_THUMBNAIL = 240  # pixels, the longer side


@dataclass(frozen=True)
class Picture:
    """An example with its scan as a data URI, or None where the file is not to be had."""

    example: Example
    uri: str | None
    predicted: bool  # with the outline of the predicted mask
    maps: tuple[tuple[str, str], ...] = ()  # method and data URI of each map of what speaks for the predicted class


@dataclass(frozen=True)
class Gallery:
    """Pictures under a title, with sentences about them."""

    title: str
    note: str
    pictures: tuple[Picture, ...] = ()


def hang_gallery(table: Table, again: Sequence[Run] = ()) -> Gallery:
    """What the best run got most wrong; where it predicts masks alone, also what is usual and what is best.

    Args:
        table: whose first run is shown.
        again: evaluations of runs on their own test images, which may hold maps of what speaks for a class.
    """
    best = table.rows[0]
    classes, masks = read_predictions(best.run), read_masks(best.run)
    title = "Examples" if masks and not classes else "Mistakes"
    who = f"{best.label}, the best run by validation"
    if classes is None and masks is None:
        return Gallery(title, f"{who}, has no readable predictions.csv.")
    examples, kinds = [], []
    if classes:
        examples += wrong_classes(classes, MISTAKES_SHOWN)
        kinds.append("the wrong predictions with the highest probability" if examples else "no image has a wrong class")
    if classes and masks:
        examples = _join(examples, dice_examples(masks, WORST_SHOWN))
        kinds.append("the lowest Dice coefficients")
    elif masks:
        examples += dice_examples(masks, WORST_SHOWN, MIDDLE_SHOWN, BEST_SHOWN)
        kinds.append("the lowest, the median and the highest Dice coefficients")
        if alarms := false_alarms(masks, FALSE_ALARMS_SHOWN):
            examples += alarms
            kinds.append("the normal scans with the largest predicted lesion")
    if not examples:
        return Gallery(title, f"{who}, got every test image right.")
    root = _dataset(best.run)
    files = _files(root) if root else {}
    explained = [
        best.run,
        *(run for run in again if run.summary.source and run.summary.source.directory == str(best.run.path)),
    ]
    pictures = tuple(_picture(root, files.get(example.image), best.run, example, explained) for example in examples)
    return Gallery(title, f"{who}: {', then '.join(kinds)}. {_legend(root, masks is not None, pictures)}", pictures)


def _join(first: list[Example], second: list[Example]) -> list[Example]:
    """Both lists, an image of both with both verdicts in its first place."""
    joined = {example.image: example for example in first}
    for example in second:
        known = joined.get(example.image)
        verdict = f"{known.verdict}, {example.verdict}" if known else example.verdict
        joined[example.image] = replace(example, verdict=verdict)
    return list(joined.values())


def _legend(root: Path | None, with_masks: bool, pictures: tuple[Picture, ...]) -> str:
    """What the lines mean, or why there are none."""
    if root is None:
        return "Their scans are not shown, because the dataset's folder is not recorded or no longer there."
    if not any(picture.uri for picture in pictures):
        return "Their scans cannot be read."
    words = "The solid orange line is the lesion's outline from the mask files"
    if with_masks and any(picture.predicted for picture in pictures):
        words += ", the dashed blue line the predicted one"
    elif with_masks:
        words += "; the run has no files of predicted masks"
    methods = dict.fromkeys(method for picture in pictures for method, _ in picture.maps)
    maps = f" The bright parts of a map ({', '.join(methods)}) speak for the predicted class." if methods else ""
    return f"{words}.{maps}"


def _dataset(run: Run) -> Path | None:
    root = run.summary.data.root
    try:
        return Path(root) if isinstance(root, str) and root and Path(root).is_dir() else None
    except (OSError, ValueError):
        return None


def _files(root: Path) -> dict[str, CaseFiles]:
    try:
        return {case.case_id: case for case in list_files(root)[0]}
    except OSError:
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
            lesion |= resized(read_mask(root / name), pixels.shape)
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
