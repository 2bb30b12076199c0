"""busi-predict: scans -> class probabilities, lesion masks, overlays, JSON and CSV.

From Python: ``busi_lab.predict.load("runs/mobilenet").predict("scan.png").probabilities``.
"""

import argparse
import csv
import io
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from busi_lab.errors import OneLineParser, UserError, exit_on_user_error, one_line
from busi_lab.run_directory import CLASSES, SUMMARY, find_run_directories, read_summary, write_atomically

if TYPE_CHECKING:
    from busi_lab.data.scan import Scan
    from busi_lab.explain import Explainer
    from busi_lab.inference import Prediction, Predictor

SCHEMA = 1
TABLE = "predictions.csv"
COLUMNS = (
    *("file", "frame", "width", "height", "class", *(f"p_{name}" for name in CLASSES)),
    *("lesions", "lesion_pixels", "lesion_area_mm2", "box_left", "box_top", "box_width", "box_height"),
    *("longest_diameter_pixels", "longest_diameter_mm", "error"),
)
"""Columns of :data:`TABLE`; box and diameter are those of the largest lesion."""

_WORKERS = min(8, os.cpu_count() or 1)
_AHEAD = 2 * _WORKERS  # files that are read, and scans that are written, beside the network's work
_MASK_NAME = re.compile(r"(?P<scan>.+)_mask(_\d+)?$")
_FRAME_NAME = re.compile(r"(?P<file>.+)_frame\d{4,}$")


def load(
    run: Path | str | Sequence[Path | str] = (),
    *,
    classifier: Path | str | Sequence[Path | str] = (),
    segmenter: Path | str | Sequence[Path | str] = (),
    device: str = "auto",
    tta: bool = False,
) -> "Predictor":
    """Load trained runs once, to be applied to any number of scans.

    Several runs for one part are averaged. A folder of runs, such as a sweep's, stands for all finished ones in it.

    Args:
        run: runs that do all they can: a joint run both, a classifier or a segmenter its part.
        classifier: runs whose class output alone is used.
        segmenter: runs whose mask output alone is used.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` and so on.
        tta: average over each scan and its mirror image.

    Raises:
        UserError: no run, a run that cannot be used, or no such device.
    """
    given, classifiers, segmenters = (_expand(paths) for paths in (run, classifier, segmenter))
    for path in given:
        task = read_summary(path).task
        if task != "segmentation":
            classifiers.append(path)
        if task != "classification":
            segmenters.append(path)
    from busi_lab.inference import Predictor  # torch takes seconds: not for --help

    return Predictor(list(dict.fromkeys(classifiers)), list(dict.fromkeys(segmenters)), device, tta)


def _expand(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    """The runs that ``paths`` mean, in full, so that one given twice is known; of a folder the finished ones."""
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, Path | str) else paths):
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; give the directory of a finished run, or a folder of them")
        if (path / SUMMARY).exists():
            found.append(path.resolve())
            continue
        summaries = {item: read_summary(item) for item in find_run_directories([path])}
        finished = [
            item for item, summary in summaries.items() if summary.status == "finished" and summary.source is None
        ]
        if not finished:
            raise UserError(f"{path} holds no finished run (a folder with {SUMMARY}); give the directory of one")
        found += finished
    return found


@dataclass(frozen=True)
class ScanFile:
    """A file to predict, and the name that what is written for it begins with."""

    path: Path
    name: str


@dataclass
class Tally:
    """What came of a call: scans done, files that could not be read with the reason, masks left out."""

    scans: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def list_scans(paths: Sequence[Path]) -> tuple[list[ScanFile], str]:
    """The scans that ``paths`` mean: files as they are, folders with all below them.

    A folder's mask files in BUSI's naming, and files that are no images by their ending, are left out.

    Returns:
        The files in order, under names that differ, and in words how many were left out.

    Raises:
        UserError: a path does not exist, or there is no scan at all.
    """
    from busi_lab.data.reading import is_scan_file

    found: list[tuple[Path, str]] = []
    masks = others = 0
    for path in paths:
        if path.is_file():
            found.append((path, path.name))
            continue
        if not path.is_dir():
            raise UserError(f"{path}: no such file or folder; give scans, or folders of them")
        everything = [item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")]
        files = sorted(item for item in everything if is_scan_file(item))
        others += len(everything) - len(files)
        stems = {item.with_suffix("") for item in files}
        for item in files:
            match = _MASK_NAME.fullmatch(item.stem)
            if match and item.with_name(match["scan"]) in stems:
                masks += 1
            else:
                found.append((item, item.relative_to(path).as_posix()))
    if not found:
        suffixes = "PNG, JPEG, BMP, TIFF or DICOM"
        raise UserError(f"{', '.join(map(str, paths))}: no scan found; expected {suffixes} files")
    left_out = {"mask files": masks, "files of other kinds": others}
    words = " and ".join(f"{number} {kind}" for kind, number in left_out.items() if number)
    return [ScanFile(path, name) for (path, _), name in zip(found, _distinct_names(found), strict=True)], words


def _distinct_names(found: Sequence[tuple[Path, str]]) -> list[str]:
    """A name for each file and its path below the folder that was given; two never mean the same output file."""
    from busi_lab.data.reading import SUFFIXES

    plain = [name[: -len(path.suffix)] if path.suffix.lower() in SUFFIXES else name for path, name in found]
    stems = {name.lower() for name in plain}  # some file systems know no capitals
    taken: set[str] = set()

    def is_free(name: str) -> bool:
        frame = _FRAME_NAME.fullmatch(name)
        return name not in taken and not (frame and frame["file"] in stems)

    names = []
    for (_, relative), stem in zip(found, plain, strict=True):
        wished = chain([stem, relative.replace(".", "_")], (f"{stem}-{number}" for number in count(2)))
        names.append(next(name for name in wished if is_free(name.lower())))
        taken.add(names[-1].lower())
    return names


def predict_files(
    predictor: "Predictor",
    files: Sequence[ScanFile],
    out: Path | None,
    json_lines: IO[str] | None = None,
    batch_size: int = 16,
    explainer: "Explainer | None" = None,
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
        table = stack.enter_context(_open_table(out)) if out else None
        writer = _Writer(pool, out, table, json_lines)
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


def _open_table(out: Path) -> IO[str]:
    """The table in ``out``; file names that are no UTF-8 are escaped there, as in JSON."""
    return (out / TABLE).open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)


def _predict_batch(
    predictor: "Predictor", batch: "Sequence[tuple[ScanFile, Scan]]", writer: "_Writer", explainer: "Explainer | None"
) -> None:
    predictions = predictor.predict_batch([scan for _, scan in batch])
    for (file, scan), prediction in zip(batch, predictions, strict=True):
        heat = explainer.explain(scan.pixels, prediction.label) if explainer and prediction.label else {}
        writer.write(file, scan, prediction, heat)


def _read_ahead(
    pool: ThreadPoolExecutor, files: Sequence[ScanFile], progress: Callable[[], Any]
) -> "Iterator[tuple[ScanFile, Scan | str]]":
    """The scans of all files in order, or why there are none; the first frames of some files ahead are decoded."""
    from busi_lab.data.reading import read_scans
    from busi_lab.data.scan import UnreadableImageError

    def begin(file: ScanFile) -> "tuple[Scan, Iterator[Scan]]":
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


class _Writer:
    """Writes what was predicted, pictures in the threads of ``pool``, rows in the order of the files."""

    def __init__(
        self, pool: ThreadPoolExecutor, out: Path | None, table: IO[str] | None, json_lines: IO[str] | None
    ) -> None:
        self._pool, self._out, self._json_lines = pool, out, json_lines
        self._waiting: deque[Future[None]] = deque()
        self._rows = None if table is None else csv.DictWriter(table, COLUMNS, lineterminator="\n")
        if self._rows is not None:
            self._rows.writeheader()

    def write(self, file: ScanFile, scan: "Scan", prediction: "Prediction", heat: "dict[str, Any]") -> None:
        name = file.name if scan.frame is None else f"{file.name}_frame{scan.frame:04d}"
        names = {"overlay": f"{name}_overlay.png", **{method: f"{name}_{method}.png" for method in heat}}
        if prediction.mask is not None:
            names["mask"] = f"{name}_mask.png"
        record = _record(file, scan, prediction, names if self._out else {})
        if self._json_lines is not None:
            print(json.dumps(record), file=self._json_lines, flush=True)
        self._add_row(_row(file, scan, prediction))
        if self._out is None:
            return
        while len(self._waiting) >= _AHEAD:
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
            self._rows.writerow(row)


def _record(file: ScanFile, scan: "Scan", prediction: "Prediction", names: dict[str, str]) -> dict[str, Any]:
    """What ``NAME.json`` holds."""
    lesions = prediction.lesions
    return {
        "schema": SCHEMA,
        "file": str(file.path),
        "frame": scan.frame,
        "width": prediction.width,
        "height": prediction.height,
        "spacing_mm": prediction.spacing,
        "class": prediction.label,
        "probabilities": prediction.probabilities,
        "lesion_found": None if lesions is None else bool(lesions),
        "lesion_pixels": prediction.lesion_pixels,
        "lesion_area_mm2": prediction.lesion_area_mm2,
        "lesions": None if lesions is None else [asdict(lesion) for lesion in lesions],
        **({"pictures": {kind: Path(name).name for kind, name in names.items()}} if names else {}),
        "runs": [asdict(run) for run in prediction.runs],
    }


def _row(file: ScanFile, scan: "Scan", prediction: "Prediction") -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": str(file.path),
        "frame": scan.frame,
        "width": prediction.width,
        "height": prediction.height,
        "class": prediction.label,
        **{f"p_{name}": f"{value:.7g}" for name, value in (prediction.probabilities or {}).items()},
        "lesions": None if prediction.lesions is None else len(prediction.lesions),
        "lesion_pixels": prediction.lesion_pixels,
        "lesion_area_mm2": _short(prediction.lesion_area_mm2),
    }
    if prediction.lesions:
        largest = prediction.lesions[0]
        row |= zip(("box_left", "box_top", "box_width", "box_height"), largest.bounding_box, strict=True)
        row["longest_diameter_pixels"] = _short(largest.longest_diameter_pixels)
        row["longest_diameter_mm"] = _short(largest.longest_diameter_mm)
    return row


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.7g}"


def _write_scan(
    out: Path,
    name: str,
    record: dict[str, Any],
    names: dict[str, str],
    scan: "Scan",
    prediction: "Prediction",
    heat: "dict[str, Any]",
) -> None:
    from PIL import Image

    from busi_lab.report.overlay import draw_heat, draw_overlay

    pictures = {names["overlay"]: draw_overlay(scan.pixels, prediction.mask, _caption(prediction))}
    if prediction.mask is not None:
        pictures[names["mask"]] = Image.fromarray(prediction.mask)
    pictures |= {names[method]: draw_heat(scan.pixels, values, prediction.mask) for method, values in heat.items()}
    for picture_name, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)  # a third faster than 4, and 6 % larger
        write_atomically(out / picture_name, buffer.getvalue(), sync=False)
    write_atomically(out / f"{name}.json", json.dumps(record, indent=2) + "\n", sync=False)


def _caption(prediction: "Prediction") -> list[str]:
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


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-predict",
        description="Predict class and lesion outline of scans (PNG, JPEG, BMP, TIFF, DICOM). Not a medical device.",
        epilog="A RUN may be a folder of runs, such as a sweep's; runs given to one option are averaged. "
        "Exit code 1 if a file could not be read, 2 for a wrong input.",
    )
    parser.add_argument("scans", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="scans, or folders of them")
    for option, words in {
        "--run": "a run that does all it can: a joint one both, another its part; can be repeated",
        "--classifier": "a run for the class; can be repeated",
        "--segmenter": "a run for the lesion mask; can be repeated",
    }.items():
        parser.add_argument(option, action="append", default=[], type=Path, metavar="RUN", help=words)
    parser.add_argument("--out", type=Path, metavar="DIR", help="new or empty folder for JSON, masks, overlays and CSV")
    parser.add_argument("--json", metavar="FILE", help="write a line of JSON for each scan to FILE, or - for stdout")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--tta", action="store_true", help="average over each scan and its mirror image")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="scans at once (default: 16)")
    parser.add_argument(
        "--explain",
        action="append",
        default=[],
        choices=("gradcam", "occlusion"),
        help="draw what speaks for the predicted class; can be repeated; needs busi-lab[explain]",
    )
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    with exit_on_user_error(), _os_error_is_user_error(), ExitStack() as stack:
        arguments = _arguments(argv)
        out: Path | None = arguments.out
        if out is None and arguments.json is None:
            raise UserError("nowhere to write to: give --out DIR, --json FILE, or --json - for stdout")
        if arguments.explain and out is None:
            raise UserError("--explain draws pictures: give --out DIR for them")
        if arguments.batch_size < 1:
            raise UserError(f"--batch-size {arguments.batch_size}: expected at least 1")
        _check_destinations(out, arguments.json)
        files, left_out = list_scans(arguments.scans)
        predictor = load(
            arguments.run,
            classifier=arguments.classifier,
            segmenter=arguments.segmenter,
            device=arguments.device,
            tta=arguments.tta,
        )
        explainer = None
        if arguments.explain:
            from busi_lab.explain import Explainer

            explainer = Explainer([predictor.task(path) for path in predictor.classifiers], arguments.explain)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        lines = None
        if arguments.json == "-":
            lines = sys.stdout
        elif arguments.json is not None:
            lines = stack.enter_context(Path(arguments.json).open("w", encoding="utf-8"))
        from tqdm import tqdm

        bar = stack.enter_context(tqdm(total=len(files), unit="file", disable=not sys.stderr.isatty()))
        tally = predict_files(predictor, files, out, lines, arguments.batch_size, explainer, bar.update)
        bar.close()
        _conclude(tally, left_out, out)
        if tally.unreadable:
            sys.exit(1)


@contextmanager
def _os_error_is_user_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        what = error.filename or "a result"
        raise UserError(f"{what} cannot be read or written ({error.strerror}); choose another place") from None


def _check_destinations(out: Path | None, json_file: str | None) -> None:
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: expected a new or an empty folder; choose another or remove it")
    if json_file is not None and json_file != "-":
        path = Path(json_file)
        taken = path.is_file() or path.is_dir()  # a pipe or a device may be written to
        if taken or not path.parent.is_dir() or (out and path.resolve().is_relative_to(out.resolve())):
            raise UserError(
                f"--json {json_file}: expected a new file in a folder that exists, outside --out, or - for stdout"
            )


def _conclude(tally: Tally, left_out: str, out: Path | None) -> None:
    inside = f", {tally.scans / tally.model_seconds:.1f} inside the models" if tally.model_seconds else ""
    end_to_end = tally.scans / max(tally.seconds, 1e-9)
    where = f"; {TABLE}, JSON and pictures are in {out}" if out else ""
    left = f"; left out: {left_out}" if left_out else ""
    print(f"{tally.scans} scans, {end_to_end:.1f} a second end to end{inside}{left}{where}", file=sys.stderr)
    for path, reason in tally.unreadable:
        print(f"not read: {path}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
