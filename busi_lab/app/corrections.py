"""What a reader corrects, kept as a dataset that ``data=labels`` trains on.

``labels.csv`` has a row for each scan: file, label, mask, patient, spacing, time. Scans are named by their pixels, so
that one saved again replaces its row. All frames of a file have one value of ``patient``, so that no split parts them;
two files of one patient have two, because nothing of the patient is read.
"""

import csv
import hashlib
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from busi_lab.app.pictures import png
from busi_lab.classes import BUSI, Classes
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.data.options import LABELS
from busi_lab.data.scan import Mask, Scan
from busi_lab.errors import UserError, one_line
from busi_lab.files import read_rows, write_atomically, write_json, write_rows
from busi_lab.locks import locked

COLUMNS = ("file", "label", "mask_file", "patient", "spacing", "saved")
_LOCK = ".corrections.lock"


@dataclass(frozen=True)
class Saved:
    """What was saved: the number of scans in the folder, and whether one was replaced."""

    scans: int
    replaced: bool


class Corrections:
    """A folder of corrected scans.

    Args:
        folder: made where it is missing; may hold what an earlier server has saved.
        classes: that a scan may be given.

    Raises:
        UserError: the folder cannot be written to, holds another table, or other classes.
    """

    def __init__(self, folder: Path, classes: Classes) -> None:
        self._folder, self.classes = folder, classes
        self._lock = threading.Lock()  # of threads; that of processes is taken for each row
        where = f"--save {folder}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / LABELS).exists() and any(folder.iterdir()):
                raise UserError(
                    f"{where}: expected a new or empty folder, or one that was saved to before; choose another"
                )
            if (folder / LABELS).exists():
                self._check(where)
            elif classes != BUSI:
                write_json(folder / DATASET, _dataset(classes))
            write_rows(folder / LABELS, self._rows(), COLUMNS)
        except OSError as error:
            raise UserError(f"{where}: cannot be written to ({one_line(error)}); choose another folder") from None

    def _check(self, where: str) -> None:
        with (self._folder / LABELS).open(encoding="utf-8", newline="") as file:
            heading = tuple(next(csv.reader(file), ()))
        if heading != COLUMNS:
            raise UserError(
                f"{where}: expected {LABELS} with the columns {','.join(COLUMNS)}, found {','.join(heading)[:80]}; "
                "choose another folder"
            )
        if (found := read_classes(self._folder)) != self.classes:
            raise UserError(
                f"{where}: holds scans of {', '.join(found.names)}, the models are of {', '.join(self.classes.names)}; "
                "choose another folder"
            )

    def save(self, scan: Scan, patient: str, label: str, mask: Mask) -> Saved:
        """Keep a scan, its class and its mask bool ``[H, W]``; pixels alone, whatever the file says of a patient.

        An empty mask is kept where the class has no lesion; of another class it means that the mask is not known.

        Raises:
            UserError: no such class, a lesion in a scan of the class without, or a folder that cannot be written to.
        """
        if label and label not in self.classes.names:
            raise UserError(f"class {label[:40]!r}: expected {', '.join(self.classes.names)} or none")
        if mask.shape != scan.pixels.shape:
            raise UserError(f"mask: expected {scan.pixels.shape} pixels, found {mask.shape}; draw it again")
        if label and label == self.classes.without_lesion and mask.any():
            raise UserError(
                f"{label} is the class without a lesion, and one is drawn; clear the drawing or choose another"
            )
        name = hashlib.sha256(
            np.ascontiguousarray(scan.pixels).tobytes() + str(scan.pixels.shape).encode()
        ).hexdigest()[:16]
        row = {
            "file": f"scans/{name}.png",
            "label": label,
            "mask_file": f"masks/{name}.png" if mask.any() else "",
            "patient": patient,
            "spacing": "" if scan.spacing is None else "x".join(f"{side:.6g}" for side in scan.spacing),
            "saved": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        try:
            with self._lock, locked(self._folder / _LOCK, wait="another process saves: waiting for it"):
                rows = {each["file"]: each for each in self._rows()}
                replaced = row["file"] in rows
                write_atomically(self._folder / row["file"], png(Image.fromarray(scan.pixels)))
                if row["mask_file"]:
                    write_atomically(self._folder / row["mask_file"], png(Image.fromarray(mask)))
                rows[row["file"]] = row
                write_rows(self._folder / LABELS, rows.values(), COLUMNS)
                if not row["mask_file"]:
                    (self._folder / "masks" / f"{name}.png").unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written to ({one_line(error)}); nothing was saved") from None
        return Saved(len(rows), replaced)

    def _rows(self) -> list[dict[str, str]]:
        return read_rows(self._folder / LABELS) if (self._folder / LABELS).exists() else []


def _dataset(classes: Classes) -> dict[str, Any]:
    """What ``dataset.json`` says of classes."""
    roles = {"positive": classes.positive, "without_lesion": classes.without_lesion}
    return {"classes": list(classes.names), **{role: name for role, name in roles.items() if name is not None}}
