"""What is written for a scan: a row of the table, JSON, the mask and the pictures."""

import csv
import io
import json
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from PIL import Image

from busi_lab.data.scan import Origin, Scan
from busi_lab.files import PROBABILITY_DIGITS, no_formula, write_atomically
from busi_lab.inference.explain import Heat
from busi_lab.inference.prediction import Prediction
from busi_lab.inference.scans import ScanFile
from busi_lab.report.figures.overlay import draw_heat, draw_overlay
from busi_lab.report.words import NOT_A_DEVICE

SCHEMA = 1
TABLE = "predictions.csv"
_COLUMNS = (
    *("prediction_set", "lesions", "lesion_pixels", "lesion_area_mm2"),
    *("box_left", "box_top", "box_width", "box_height"),
    *("longest_diameter_pixels", "longest_diameter_mm", "lesion_confidence"),
    *("error", "notes", *(item.name for item in fields(Origin))),
)
"""Columns of :data:`TABLE` behind the probabilities; box, diameter and confidence are those of the largest lesion."""


def columns(classes: Sequence[str]) -> list[str]:
    """All columns of :data:`TABLE`, for runs that predict ``classes``."""
    return ["file", "frame", "width", "height", "class", *(f"p_{name}" for name in classes), *_COLUMNS]


def open_table(out: Path) -> IO[str]:
    """The table in ``out``; file names that are no UTF-8 are escaped there, as in JSON."""
    return (out / TABLE).open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)


class Writer:
    """Writes what was predicted, pictures in the threads of a pool, rows in the order of the files.

    Args:
        pool: writes the pictures and ``NAME.json``.
        ahead: scans that may wait for it.
        out: folder for them; None to write none.
        table: gets a row for each scan, as :func:`open_table` opens it.
        json_lines: gets a line of JSON for each scan.
        classes: that the runs predict.
        overlays: whether to draw them, which takes most of the time that writing takes.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        ahead: int,
        out: Path | None,
        table: IO[str] | None,
        json_lines: IO[str] | None,
        classes: Sequence[str],
        overlays: bool = True,
    ) -> None:
        self._pool, self._ahead, self._out, self._json_lines = pool, ahead, out, json_lines
        self._overlays = overlays
        self._waiting: deque[Future[None]] = deque()
        self._rows = None if table is None else csv.DictWriter(table, columns(classes), lineterminator="\n")
        if self._rows is not None:
            self._rows.writeheader()

    def write(self, file: ScanFile, scan: Scan, prediction: Prediction, heat: dict[str, Heat]) -> None:
        """Write one scan; ``heat`` has what speaks for its class, float32 ``[H, W]``, by method."""
        name = file.name if scan.frame is None else f"{file.name}_frame{scan.frame:04d}"
        names = {method: f"{name}_{method}.png" for method in heat}
        if self._overlays:
            names["overlay"] = f"{name}_overlay.png"
        if prediction.mask is not None:
            names["mask"] = f"{name}_mask.png"
        record = {"notice": NOT_A_DEVICE, **record_of(file, scan, prediction, names if self._out else {})}
        if self._json_lines is not None:
            print(json.dumps(record), file=self._json_lines, flush=True)
        self._add_row(_row(file, scan, prediction))
        if self._out is None:
            return
        while len(self._waiting) >= self._ahead:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(_write_scan, self._out, name, record, names, scan, prediction, heat))

    def note_unreadable(self, file: ScanFile, reason: str) -> None:
        """Leave a row for a file that could not be read."""
        self._add_row({"file": str(file.path), "error": reason})

    def finish(self) -> None:
        """Wait for what is still to be written."""
        while self._waiting:
            self._waiting.popleft().result()

    def _add_row(self, row: dict[str, Any]) -> None:
        if self._rows is not None:
            self._rows.writerow({key: no_formula(cell) if isinstance(cell, str) else cell for key, cell in row.items()})


def record_of(file: ScanFile, scan: Scan, prediction: Prediction, names: dict[str, str]) -> dict[str, Any]:
    """What ``NAME.json`` holds below its notice."""
    lesions = prediction.lesions
    return {
        "schema": SCHEMA,
        "file": str(file.path),
        "frame": scan.frame,
        "width": prediction.width,
        "height": prediction.height,
        "spacing_mm": prediction.spacing,
        **asdict(scan.origin),
        "notes": prediction.notes,
        "class": prediction.label,
        "probabilities": prediction.probabilities,
        "prediction_set": prediction.prediction_set,
        "lesion_found": None if lesions is None else bool(lesions),
        "lesion_pixels": prediction.lesion_pixels,
        "lesion_area_mm2": prediction.lesion_area_mm2,
        "lesions": None if lesions is None else [asdict(lesion) for lesion in lesions],
        "confidence_calibrated": prediction.confidence_calibrated,
        **({"pictures": {kind: Path(name).name for kind, name in names.items()}} if names else {}),
        "runs": [asdict(run) for run in prediction.runs],
    }


def _row(file: ScanFile, scan: Scan, prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": str(file.path),
        "frame": scan.frame,
        "width": prediction.width,
        "height": prediction.height,
        "class": prediction.label,
        **{f"p_{name}": f"{value:.{PROBABILITY_DIGITS}g}" for name, value in (prediction.probabilities or {}).items()},
        "prediction_set": None if prediction.prediction_set is None else " ".join(prediction.prediction_set) or "none",
        "lesions": None if prediction.lesions is None else len(prediction.lesions),
        "lesion_pixels": prediction.lesion_pixels,
        "lesion_area_mm2": _short(prediction.lesion_area_mm2),
        "notes": "; ".join(prediction.notes),
        **asdict(scan.origin),
    }
    if prediction.lesions:
        largest = prediction.lesions[0]
        row |= zip(("box_left", "box_top", "box_width", "box_height"), largest.bounding_box, strict=True)
        row["longest_diameter_pixels"] = _short(largest.longest_diameter_pixels)
        row["longest_diameter_mm"] = _short(largest.longest_diameter_mm)
        row["lesion_confidence"] = _short(largest.confidence)
    return row


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.7g}"


def _write_scan(
    out: Path,
    name: str,
    record: dict[str, Any],
    names: dict[str, str],
    scan: Scan,
    prediction: Prediction,
    heat: dict[str, Heat],
) -> None:
    pictures = {}
    if "overlay" in names:
        pictures[names["overlay"]] = draw_overlay(scan.pixels, prediction.mask, _caption(prediction))
    if prediction.mask is not None:
        pictures[names["mask"]] = Image.fromarray(prediction.mask)
    pictures |= {names[method]: draw_heat(scan.pixels, values, prediction.mask) for method, values in heat.items()}
    for picture_name, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)  # five times as fast, a third larger
        write_atomically(out / picture_name, buffer.getvalue(), sync=False)
    write_atomically(out / f"{name}.json", json.dumps(record, indent=2) + "\n", sync=False)


def _caption(prediction: Prediction) -> list[str]:
    """Lines of words under an overlay."""
    lines = []
    if prediction.probabilities is not None:
        lines.append(f"{prediction.label}")
        lines.append("  ".join(f"{name} {value:.2f}" for name, value in prediction.probabilities.items()))
    if prediction.lesions is not None and not prediction.lesions:
        lines.append("no lesion found")
    elif prediction.lesions:
        largest, count = prediction.lesions[0], len(prediction.lesions)
        what = "lesion" if count == 1 else f"{count} parts, the largest"
        if largest.area_mm2 is not None:
            lines.append(f"{what} {largest.longest_diameter_mm:.1f} mm long, {largest.area_mm2:.0f} mm²")
        else:
            lines.append(f"{what} {largest.longest_diameter_pixels:.0f} px long, {largest.area_pixels:,} px")
    return lines
