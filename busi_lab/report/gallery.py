"""The scans that the best run of a table got most wrong, small enough to travel inside a page."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter

from busi_lab.data.index import UnreadableImageError, read_image, read_mask
from busi_lab.report.predictions import Mistake, worst_mistakes
from busi_lab.report.tables import Table
from busi_lab.run_directory import CLASSES, Run

MISTAKES_SHOWN = 8
_THUMBNAIL = 240  # pixels, the longer side
_OUTLINE = (255, 176, 0)


@dataclass(frozen=True)
class Picture:
    """A mistake with its scan as a data URI, or None where the file is not to be had."""

    mistake: Mistake
    uri: str | None


def hang_gallery(table: Table) -> tuple[list[Picture], str]:
    """The worst mistakes of the best run, and a sentence about them."""
    best = table.rows[0]
    mistakes = worst_mistakes(best.run, MISTAKES_SHOWN)
    if mistakes is None:
        return [], f"{best.label}, the best run by validation, has no readable predictions.csv."
    if not mistakes:
        return [], f"{best.label}, the best run by validation, got every test image right."
    root = _dataset(best.run)
    pictures = [Picture(mistake, _thumbnail(root, mistake) if root else None) for mistake in mistakes]
    by_class = mistakes[0].verdict.startswith("predicted")
    kind = "the wrong predictions with the highest probability" if by_class else "the lowest Dice coefficients"
    sentences = [f"{best.label}, the best run by validation: {kind}."]
    if root is None:
        sentences.append("Their scans are not shown, because the dataset's folder is not recorded or no longer there.")
    elif any(picture.uri for picture in pictures):
        sentences.append("The orange line is the lesion's outline from the mask files.")
    return pictures, " ".join(sentences)


def _dataset(run: Run) -> Path | None:
    root = run.summary.data.get("root")
    try:
        return Path(root) if isinstance(root, str) and root and Path(root).is_dir() else None
    except (OSError, ValueError):
        return None


def _thumbnail(root: Path, mistake: Mistake) -> str | None:
    """The scan as a small JPEG, with its lesions outlined; None where there is no readable file."""
    folder = root / mistake.label
    if mistake.label not in CLASSES or re.search(r"[/\\\0]", mistake.image):
        return None
    try:
        picture = Image.fromarray(read_image(folder / f"{mistake.image}.png")).convert("RGB")
        size = picture.size
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        lesion = Image.new("L", size)
        for suffix in ("", *(f"_{i}" for i in range(1, 10))):
            path = folder / f"{mistake.image}_mask{suffix}.png"
            if path.exists():
                lesion = ImageChops.lighter(lesion, Image.fromarray(read_mask(path)).convert("L").resize(size))
    except (UnreadableImageError, OSError, ValueError):
        return None
    lesion = lesion.resize(picture.size).point(lambda level: 255 if level > 127 else 0)
    outline = ImageChops.subtract(lesion.filter(ImageFilter.MaxFilter(3)), lesion)
    picture.paste(_OUTLINE, (0, 0), outline)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
