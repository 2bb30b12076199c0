"""busi-predict: scans -> class probabilities, lesion masks, overlays, JSON and CSV.

From Python: ``busi_lab.predict.load("runs/mobilenet").predict("scan.png").probabilities``. What needs torch, which
takes seconds, is imported when arguments are sound: not for ``--help``.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from busi_lab.errors import OneLineParser, UserError, exit_on_user_error
from busi_lab.exported.sessions import BACKENDS, PRECISIONS, Runtime
from busi_lab.hub import PREFIX, fetch
from busi_lab.plurals import counted
from busi_lab.run_directory import finished_runs
from busi_lab.summary import read_summary

if TYPE_CHECKING:
    from busi_lab.inference.batch import Tally
    from busi_lab.inference.predictor import Predictor


_NOTES = 10  # that are said at the end; all are in the results


def load(
    run: Path | str | Sequence[Path | str] = (),
    *,
    classifier: Path | str | Sequence[Path | str] = (),
    segmenter: Path | str | Sequence[Path | str] = (),
    device: str = "auto",
    tta: bool = False,
    calibrated: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "32",
    coverage: float | None = None,
) -> "Predictor":
    """Load trained runs once, to be applied to any number of scans.

    Several runs for one part are averaged. A folder of runs, such as a sweep's, stands for all finished ones in it.

    Args:
        run: runs that do all they can: a joint run both, a classifier or a segmenter its part; directories, or
            ``hf://USER/NAME`` of a model hub.
        classifier: runs whose class output alone is used.
        segmenter: runs whose mask output alone is used.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` and so on.
        tta: average over each scan and its mirror image.
        calibrated: scale the classes of each run by the temperature that it has found on its validation images.
        backend: ``auto``, ``torch`` for runs, ``onnxruntime`` or ``openvino`` for exported ones.
        threads: of the CPU for a network; None for all cores that this process may use.
        precision: ``32``, ``bf16`` or ``auto``; other than 32 for OpenVINO alone.
        coverage: 0.8, 0.9 or 0.95 for prediction sets that hold the true class so often, by one run's thresholds.

    Raises:
        UserError: no run, a run that cannot be used, or no such device.
    """
    runtime = Runtime(backend, threads, precision)
    given, classifiers, segmenters = (finished_runs(_here(paths)) for paths in (run, classifier, segmenter))
    from busi_lab.inference.predictor import Predictor, can_classify, can_segment  # torch takes seconds: not for --help

    for path in given:
        task = read_summary(path).task
        classifiers += [path] if can_classify(task) else []
        segmenters += [path] if can_segment(task) else []
    return Predictor(
        list(dict.fromkeys(classifiers)), list(dict.fromkeys(segmenters)), device, tta, calibrated, runtime, coverage
    )


def _here(paths: Path | str | Sequence[Path | str]) -> list[Path | str]:
    """Directories of runs, those of a model hub fetched."""
    listed = [paths] if isinstance(paths, Path | str) else paths
    return [fetch(path) if isinstance(path, str) and path.startswith(PREFIX) else path for path in listed]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-predict",
        description="Predict class and lesion outline of scans (PNG, JPEG, BMP, TIFF, DICOM). Not a medical device.",
        epilog="A RUN may be a folder of runs, such as a sweep's, or hf://USER/NAME of a model hub; runs given to one "
        "option are averaged. Exit code 1 if a file could not be read, 2 for a wrong input; files of a kind without "
        "pictures are left out.",
    )
    parser.add_argument("scans", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="scans, or folders of them")
    for option, words in {
        "--run": "a run that does all it can: a joint one both, another its part; can be repeated",
        "--classifier": "a run for the class; can be repeated",
        "--segmenter": "a run for the lesion mask; can be repeated",
    }.items():
        parser.add_argument(option, action="append", default=[], metavar="RUN", help=words)
    parser.add_argument("--out", type=Path, metavar="DIR", help="new or empty folder for JSON, masks, overlays and CSV")
    parser.add_argument("--no-overlays", action="store_true", help="draw no overlays, which take most of the writing")
    parser.add_argument("--json", metavar="FILE", help="write a line of JSON for each scan to FILE, or - for stdout")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="what applies exported runs (default: what they are for)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU for a network (default: all cores)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="32", help="in which OpenVINO computes (default: 32)"
    )
    parser.add_argument("--tta", action="store_true", help="average over each scan and its mirror image")
    parser.add_argument(
        "--calibrated", action="store_true", help="scale class probabilities by the temperature of each run"
    )
    parser.add_argument(
        "--sets",
        type=float,
        metavar="COVERAGE",
        help="the classes that a scan may have: 0.8, 0.9 or 0.95 of the sets hold the true one",
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="scans at once (default: 16)")
    parser.add_argument("--spacing", metavar="MM", help="mm per pixel, as 0.1 or 0.1x0.12, where files do not tell")
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
        if arguments.no_overlays and out is None:
            raise UserError("--no-overlays: without --out DIR nothing is drawn; leave it out")
        if arguments.explain and out is None:
            raise UserError("--explain draws pictures: give --out DIR for them")
        if arguments.batch_size < 1:
            raise UserError(f"--batch-size {arguments.batch_size}: expected at least 1")
        _check_destinations(out, arguments.json)
        spacing = _spacing(arguments.spacing)
        from busi_lab.inference.scans import list_scans

        files, left_out = list_scans(arguments.scans)
        predictor = load(
            arguments.run,
            classifier=arguments.classifier,
            segmenter=arguments.segmenter,
            device=arguments.device,
            tta=arguments.tta,
            calibrated=arguments.calibrated,
            backend=arguments.backend,
            threads=arguments.threads,
            precision=arguments.precision,
            coverage=arguments.sets,
        )
        explainer = None
        if arguments.explain and predictor.cuts_scans:
            raise UserError(
                "--explain: a classifier here sees scans that are cut (data.roi), which no map fits; leave it out"
            )
        if arguments.explain:
            from busi_lab.inference.explain import Explainer

            explainer = Explainer([predictor.task(path) for path in predictor.classifiers], arguments.explain)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        lines = None
        if arguments.json == "-":
            lines = sys.stdout
        elif arguments.json is not None:
            lines = stack.enter_context(Path(arguments.json).open("w", encoding="utf-8"))
        from tqdm import tqdm

        from busi_lab.inference.batch import predict_files

        bar = stack.enter_context(tqdm(total=len(files), unit="file", disable=not sys.stderr.isatty()))
        tally = predict_files(
            predictor,
            files,
            out,
            lines,
            arguments.batch_size,
            explainer,
            bar.update,
            spacing,
            overlays=not arguments.no_overlays,
        )
        bar.close()
        _conclude(tally, left_out, out)
        _tell_always(predictor)
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


def _spacing(text: str | None) -> "tuple[float, float] | None":
    """What ``--spacing`` means."""
    if text is None:
        return None
    from busi_lab.data.spacing import parse_spacing

    try:
        return parse_spacing(text)
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _tell_notes(notes: Sequence[str]) -> None:
    for note in notes[:_NOTES]:
        print(f"note: {note}", file=sys.stderr)
    if len(notes) > _NOTES:
        print(f"note: {len(notes) - _NOTES} more are in the column notes, and in JSON", file=sys.stderr)


def _tell_always(predictor: "Predictor") -> None:
    """What holds for every scan, and the classes that stand in every prediction set."""
    for note in predictor.notes:
        print(f"note: {note}", file=sys.stderr)
    if always := [name for name, lowest in (predictor.set_thresholds or {}).items() if lowest == 0]:
        print(
            f"note: {', '.join(always)}: in every prediction set, because the run had too few validation images for a "
            "threshold at this coverage",
            file=sys.stderr,
        )


def _conclude(tally: "Tally", left_out: str, out: Path | None) -> None:
    from busi_lab.inference.writer import TABLE

    inside = f", {tally.scans / tally.model_seconds:.1f} inside the models" if tally.model_seconds else ""
    end_to_end = tally.scans / max(tally.seconds, 1e-9)
    where = f"; {TABLE}, JSON and pictures are in {out}" if out else ""
    left = f"; left out: {left_out}" if left_out else ""
    print(f"{counted(tally.scans, 'scan')}, {end_to_end:.1f} a second end to end{inside}{left}{where}", file=sys.stderr)
    for path, reason in tally.left_out:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    _tell_notes([f"{path}: {note}" for path, note in tally.notes])
    for path, reason in tally.unreadable:
        print(f"not read: {path}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
