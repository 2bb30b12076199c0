"""Scans that the best run of a table got wrong or right, small enough to travel inside a page."""

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw

from busi_lab.data.index import UnreadableImageError, read_image, read_mask
from busi_lab.data.layout import CaseFiles, list_files
from busi_lab.report.predictions import (
    Example,
    dice_examples,
    false_alarms,
    read_masks,
    read_predictions,
    wrong_classes,
)
from busi_lab.report.tables import Table
from busi_lab.run_directory import MASKS, Run

MISTAKES_SHOWN = 8
WORST_SHOWN = 4
MIDDLE_SHOWN = BEST_SHOWN = FALSE_ALARMS_SHOWN = 2
_THUMBNAIL = 240  # pixels, the longer side
_TRUE, _PREDICTED = (255, 176, 0), (86, 180, 233)
_WIDTH, _DASH = 2, 7  # pixels


@dataclass(frozen=True)
class Picture:
    """An example with its scan as a data URI, or None where the file is not to be had."""

    example: Example
    uri: str | None
    predicted: bool  # with the outline of the predicted mask


@dataclass(frozen=True)
class Gallery:
    """Pictures under a title, with sentences about them."""

    title: str
    note: str
    pictures: tuple[Picture, ...] = ()


def hang_gallery(table: Table) -> Gallery:
    """What the best run got most wrong; where it predicts masks alone, also what is usual and what is best."""
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
    folder = best.run.path / MASKS if masks else None
    files = _files(root) if root else {}
    pictures = tuple(_picture(root, files.get(example.image), folder, example) for example in examples)
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
    true = "The solid orange line is the lesion's outline from the mask files"
    if not with_masks:
        return f"{true}."
    if not any(picture.predicted for picture in pictures):
        return f"{true}; the run has no files of predicted masks."
    return f"{true}, the dashed blue line the predicted one."


def _dataset(run: Run) -> Path | None:
    root = run.summary.data.get("root")
    try:
        return Path(root) if isinstance(root, str) and root and Path(root).is_dir() else None
    except (OSError, ValueError):
        return None


def _files(root: Path) -> dict[str, CaseFiles]:
    try:
        return {case.case_id: case for case in list_files(root)[0]}
    except OSError:
        return {}


def _picture(root: Path | None, case: CaseFiles | None, predictions: Path | None, example: Example) -> Picture:
    """The scan as a small JPEG with the true lesions and, from the folder ``predictions``, the predicted outlined."""
    nothing = Picture(example, None, False)
    if root is None or case is None:
        return nothing
    try:
        picture = Image.fromarray(read_image(root / case.image)).convert("RGB")
        size = picture.size
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        lesion = Image.new("L", size)
        for name in case.masks:
            lesion = ImageChops.lighter(lesion, Image.fromarray(read_mask(root / name)).convert("L").resize(size))
    except (UnreadableImageError, OSError, ValueError):
        return nothing
    _outline(picture, lesion, _TRUE, dashed=False)
    predicted = _predicted_mask(predictions, example)
    if predicted is not None:
        _outline(picture, predicted, _PREDICTED, dashed=True)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72, optimize=True, subsampling=0)  # thin lines keep their colour
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(example, uri, predicted is not None)


def _predicted_mask(folder: Path | None, example: Example) -> Image.Image | None:
    if folder is None:
        return None
    try:
        return Image.fromarray(read_mask(folder / f"{example.image}.png")).convert("L")
    except (UnreadableImageError, OSError, ValueError):
        return None


def _outline(picture: Image.Image, mask: Image.Image, colour: tuple[int, int, int], dashed: bool) -> None:
    """Draw the contours of ``mask``, a gray image of 0 and 255 of any size, on ``picture``."""
    area = np.asarray(mask.resize(picture.size, Image.Resampling.NEAREST)) > 127
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    pen = ImageDraw.Draw(picture)
    for contour in contours:
        points = [(int(x), int(y)) for x, y in contour.reshape(-1, 2)]
        length = _DASH if dashed else len(points)
        for start in range(0, len(points), 2 * length):
            pen.line([*points, points[0]][start : start + length + 1], fill=colour, width=_WIDTH)
