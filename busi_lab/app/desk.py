"""What the page does when somebody does something: plain functions of files and numbers, without Gradio.

A wrong input becomes one line on the page. One scan at a time is inside the models, so that memory stays bounded.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from busi_lab.app.about import describe_model
from busi_lab.app.batch import BatchResult, predict_many
from busi_lab.app.corrections import Corrections
from busi_lab.app.findings import Finding, find
from busi_lab.app.markup import about_markup, complaint_markup, drawing_markup, findings_markup, said_markup
from busi_lab.app.models import Model
from busi_lab.app.papers import write_papers
from busi_lab.app.pictures import drawn_mask
from busi_lab.app.uploads import Upload, open_upload, read_frame
from busi_lab.app.visits import Visits
from busi_lab.data.scan import Scan
from busi_lab.errors import UserError, one_line
from busi_lab.plurals import counted

UNKNOWN = "not known"
"""How the page calls a class that the reader does not know."""


class Desk:
    """Answers the page.

    Args:
        models: side by side.
        visits: of the server.
        corrections: where corrected scans are kept; None where none are.
    """

    def __init__(self, models: Sequence[Model], visits: Visits, corrections: Corrections | None) -> None:
        self.models, self._visits, self.corrections = models, visits, corrections
        self._one_at_a_time = threading.Lock()

    def choose(self, visitor: str, sent: Path, name: str) -> Upload:
        """Take a file.

        Raises:
            UserError: it holds no picture.
        """
        try:
            place = self._visits.take(visitor, sent)
        except FileNotFoundError:
            raise UserError(f"{name}: the file is not there any more; choose it again") from None
        except OSError as error:
            raise UserError(f"{name}: cannot be kept here ({error.strerror}); choose it again") from None
        try:
            return open_upload(place, name)
        except UserError:
            place.unlink(missing_ok=True)
            raise

    def look(self, upload: Upload, frame: int, spacing: str) -> str:
        """What all models make of a frame, as HTML.

        Raises:
            UserError: the frame cannot be read, or there is no memory for it.
        """
        scan = read_frame(upload, frame, spacing)
        return findings_markup(upload, scan, self._findings(scan))

    def papers(self, visitor: str, upload: Upload, frame: int, spacing: str) -> list[Path]:
        """The files of what :meth:`look` shows.

        Raises:
            UserError: as there.
        """
        scan = read_frame(upload, frame, spacing)
        return write_papers(self._visits.place(visitor), upload, scan, self._findings(scan))

    def drawing(self, upload: Upload, frame: int) -> tuple[str, str]:
        """The scan with the mask of the first model that has one, to be corrected, as HTML, and its class.

        Raises:
            UserError: as :meth:`look`.
        """
        scan = read_frame(upload, frame)
        with self._one_at_a_time:
            predictions = [model.predictor.predict_batch([scan])[0] for model in self.models]
        mask = next((each.mask for each in predictions if each.mask is not None), np.zeros(scan.pixels.shape, np.bool_))
        label = next((each.label for each in predictions if each.label is not None), None)
        return drawing_markup(upload, scan, mask), label or UNKNOWN

    def save(self, upload: Upload, frame: int, spacing: str, drawing: str, label: str) -> str:
        """Keep a corrected scan; returns what was done, as HTML.

        Args:
            upload: the file.
            frame: of it.
            spacing: as of :func:`read_frame`.
            drawing: what is drawn, a PNG as a data URI.
            label: a class, or :data:`UNKNOWN`.

        Raises:
            UserError: nothing is kept here, or as :meth:`Corrections.save`.
        """
        if self.corrections is None:
            raise UserError("nothing is kept here; start busi-app with --save DIR")
        scan = read_frame(upload, frame, spacing)
        mask = drawn_mask(drawing, scan.pixels.shape)
        known = "" if label == UNKNOWN else label
        saved = self.corrections.save(scan, f"file-{upload.digest}", known, mask)
        what = known or "no class"
        drawn = f"an outline of {counted(int(mask.sum()), 'pixel')}" if mask.any() else "no outline"
        done = "Replaced" if saved.replaced else "Saved"
        return said_markup(f"{done}: {what}, {drawn}. {counted(saved.scans, 'scan')} in the folder.")

    def batch(
        self, visitor: str, sent: Sequence[tuple[Path, str]], spacing: str, progress: Callable[[float], Any]
    ) -> BatchResult:
        """What all models make of many files.

        Raises:
            UserError: they are too many, or none can be read.
        """

        def take(path: Path, name: str) -> Upload:
            return self.choose(visitor, path, name)

        return predict_many(sent, take, spacing, self._findings, self._visits.place(visitor), progress)

    def cards(self) -> str:
        """What is known of the models, as HTML."""
        cards = "".join(about_markup(model.name, describe_model(model)) for model in self.models)
        return f'<div class="busi-models">{cards}</div>'

    def arrive(self, visitor: str) -> None:
        """Remember a visitor."""
        self._visits.folder(visitor)

    def leave(self, visitor: str) -> None:
        """Forget a visitor."""
        self._visits.leave(visitor)

    def _findings(self, scan: Scan) -> list[Finding]:
        with self._one_at_a_time:
            return [find(model, scan) for model in self.models]


def as_complaint(error: UserError) -> str:
    """An error as HTML."""
    return complaint_markup(one_line(error))
