"""Many files one batch after the other: decoded ahead, predicted, written behind."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from busi_lab.data.reading import read_scans
from busi_lab.data.scan import Scan, UnreadableImageError
from busi_lab.errors import one_line
from busi_lab.inference.explain import Explainer
from busi_lab.inference.predictor import Predictor
from busi_lab.inference.scans import ScanFile
from busi_lab.inference.writer import Writer, open_table
from busi_lab.machine import cpu_count

_WORKERS = min(8, cpu_count())
_AHEAD = 2 * _WORKERS  # files that are read, and scans that are written, beside the network's work


@dataclass
class Tally:
    """What came of a call: scans done, seconds, and the files that could not be read with the reason."""

    scans: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    files: Sequence[ScanFile],
    out: Path | None,
    json_lines: IO[str] | None = None,
    batch_size: int = 16,
    explainer: Explainer | None = None,
    progress: Callable[[], Any] = lambda: None,
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

    Raises:
        OSError: ``out`` or ``json_lines`` cannot be written.
    """
    tally = Tally()
    started, before = time.perf_counter(), predictor.model_seconds
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS))
        table = stack.enter_context(open_table(out)) if out else None
        writer = Writer(pool, _AHEAD, out, table, json_lines, predictor.classes)
        batch: list[tuple[ScanFile, Scan]] = []
        for file, found in _read_ahead(pool, files, progress):
            if not isinstance(found, str):
                batch.append((file, found))
                tally.scans += 1
            if isinstance(found, str) or len(batch) == batch_size:
                _predict_batch(predictor, batch, writer, explainer)
                batch.clear()
            if isinstance(found, str):
                tally.unreadable.append((file.path, found))
                writer.note_unreadable(file, found)
        _predict_batch(predictor, batch, writer, explainer)
        writer.finish()
    tally.seconds = time.perf_counter() - started
    tally.model_seconds = predictor.model_seconds - before
    return tally


def _predict_batch(
    predictor: Predictor, batch: Sequence[tuple[ScanFile, Scan]], writer: Writer, explainer: Explainer | None
) -> None:
    predictions = predictor.predict_batch([scan for _, scan in batch])
    for (file, scan), prediction in zip(batch, predictions, strict=True):
        heat = explainer.explain(scan.pixels, prediction.label) if explainer and prediction.label else {}
        writer.write(file, scan, prediction, heat)


def _read_ahead(
    pool: ThreadPoolExecutor, files: Sequence[ScanFile], progress: Callable[[], Any]
) -> Iterator[tuple[ScanFile, Scan | str]]:
    """The scans of all files in order, or why there are none; the first frames of some files ahead are decoded."""

    def begin(file: ScanFile) -> tuple[Scan, Iterator[Scan]]:
        frames = read_scans(file.path)
        return next(frames), frames

    waiting: deque[Future[Any]] = deque()
    upcoming = iter(files)
    for file in files:
        while len(waiting) < _AHEAD and (ahead := next(upcoming, None)) is not None:
            waiting.append(pool.submit(begin, ahead))
        try:
            first, frames = waiting.popleft().result()
            yield file, first
            for frame in frames:
                yield file, frame
        except UnreadableImageError as error:
            yield file, one_line(error)
        progress()
