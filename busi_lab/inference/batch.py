"""Many files one batch after the other: decoded ahead, predicted, written behind."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from busi_lab.data.reading import read_scans
from busi_lab.data.scan import NoPictureError, Scan, UnreadableImageError
from busi_lab.data.spacing import Spacing
from busi_lab.errors import one_line
from busi_lab.inference.explain import Explainer
from busi_lab.inference.predictor import Predictor
from busi_lab.inference.scans import ScanFile
from busi_lab.inference.writer import Writer, open_table
from busi_lab.machine import cpu_count

_WORKERS = min(8, cpu_count())


@dataclass
class Tally:
    """What came of a call: scans done, seconds, and files with the reason why they could not be read.

    ``left_out`` are sound files without a picture; ``notes`` has each note on a scan once for a file, however many
    frames, and none of those that hold for every scan.
    """

    scans: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    notes: dict[tuple[Path, str], None] = field(default_factory=dict)


def predict_files(
    predictor: Predictor,
    files: Sequence[ScanFile],
    out: Path | None,
    json_lines: IO[str] | None = None,
    batch_size: int = 16,
    explainer: Explainer | None = None,
    progress: Callable[[], Any] = lambda: None,
    spacing: Spacing | None = None,
    overlays: bool = True,
) -> Tally:
    """Predict files one batch after the other; memory does not grow with their number.

    Args:
        predictor: the loaded runs.
        files: to predict; those that cannot be read are noted, and do not stop the others.
        out: an empty folder for ``NAME.json``, ``NAME_mask.png``, ``NAME_overlay.png`` of each scan and
            ``predictions.csv`` of all; None to write none.
        json_lines: gets a line of JSON for each scan.
        batch_size: scans in a batch.
        explainer: draws ``NAME_METHOD.png``, too.
        progress: called after each file.
        spacing: of scans whose files do not tell it.
        overlays: whether ``NAME_overlay.png`` are drawn.

    Raises:
        OSError: ``out`` or ``json_lines`` cannot be written.
    """
    tally = Tally()
    started, before = time.perf_counter(), predictor.model_seconds
    ahead = 2 * max(_WORKERS, batch_size)  # files that are read, and scans that are written, beside the network's work
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS))
        table = stack.enter_context(open_table(out)) if out else None
        writer = Writer(pool, ahead, out, table, json_lines, predictor.classes, overlays)
        batch: list[tuple[ScanFile, Scan]] = []
        for file, found in _read_ahead(pool, ahead, files, progress):
            if isinstance(found, Scan):
                known = found.spacing is not None or found.regions
                batch.append((file, found if known else replace(found, spacing=spacing)))
                tally.scans += 1
            if not isinstance(found, Scan) or len(batch) == batch_size:
                tally.notes |= _predict_batch(predictor, batch, writer, explainer)
                batch.clear()
            if isinstance(found, NoPictureError):
                tally.left_out.append((file.path, one_line(found)))
            elif isinstance(found, UnreadableImageError):
                tally.unreadable.append((file.path, one_line(found)))
                writer.note_unreadable(file, one_line(found))
        tally.notes |= _predict_batch(predictor, batch, writer, explainer)
        writer.finish()
    tally.seconds = time.perf_counter() - started
    tally.model_seconds = predictor.model_seconds - before
    return tally


def _predict_batch(
    predictor: Predictor, batch: Sequence[tuple[ScanFile, Scan]], writer: Writer, explainer: Explainer | None
) -> dict[tuple[Path, str], None]:
    """Predict scans and write what comes of it; the notes on their files."""
    predictions = predictor.predict_batch([scan for _, scan in batch])
    for (file, scan), prediction in zip(batch, predictions, strict=True):
        heat = explainer.explain(scan.pixels, prediction.label) if explainer and prediction.label else {}
        writer.write(file, scan, prediction, heat)
    pairs = zip(batch, predictions, strict=True)
    always = len(predictor.notes)
    return {(file.path, note): None for (file, _), prediction in pairs for note in prediction.notes[always:]}


def _read_ahead(
    pool: ThreadPoolExecutor, ahead: int, files: Sequence[ScanFile], progress: Callable[[], Any]
) -> Iterator[tuple[ScanFile, Scan | UnreadableImageError]]:
    """The scans of all files in order, or why there are none; the first frames of some files ahead are decoded."""

    def begin(file: ScanFile) -> tuple[Scan, Iterator[Scan]]:
        frames = read_scans(file.path)
        return next(frames), frames

    waiting: deque[Future[Any]] = deque()
    upcoming = iter(files)
    for file in files:
        while len(waiting) < ahead and (coming := next(upcoming, None)) is not None:
            waiting.append(pool.submit(begin, coming))
        try:
            first, frames = waiting.popleft().result()
            yield file, first
            for frame in frames:
                yield file, frame
        except UnreadableImageError as error:
            yield file, error
        progress()
