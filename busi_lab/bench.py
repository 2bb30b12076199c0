"""busi-bench: how fast this machine trains, loads, predicts and compares."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from busi_lab.bench_record import Bench, Figure, read_bench, this_machine, write_bench
from busi_lab.benchmarks.settings import PARTS, Settings
from busi_lab.benchmarks.table import comparison, table
from busi_lab.errors import OneLineParser, UserError, exit_on_user_error
from busi_lab.files import write_atomically
from busi_lab.machine import cpu_count

_DEFAULT = ("loop", "start", "predict", "encoder")
_QUICK: dict[str, Any] = {"rounds": 2, "round_images": 8, "batch_sizes": (4,), "count": 40, "images": 1000, "many": 100}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-bench",
        description="Measure training loop, start, prediction and more on this machine, each beside what it is to be "
        "judged by. Let nothing else run meanwhile.",
        epilog=f"PART: {', '.join(PARTS)} (default: {', '.join(_DEFAULT)}). Results are medians of rounds in turns, "
        "with intervals. Exit code 2 for a wrong input.",
    )
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), metavar="PART", help="what is measured")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for bench.json, bench.md and bench.png")
    parser.add_argument("--against", type=Path, metavar="FILE", help="a bench.json to compare with")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all cores)")
    parser.add_argument("--rounds", type=int, metavar="N", help="of each measurement (default: 7)")
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that it works")
    parser.add_argument("--task", action="append", choices=Settings.tasks, help="of the loop; can be repeated")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="of loop and encoder (default: as published)")
    parser.add_argument(
        "--keras", action="store_true", help="beside the loop tf.keras, the paper's stack, in an environment of its own"
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        type=Path,
        metavar="RUN",
        help="a run to predict with, perhaps an exported one",
    )
    parser.add_argument("--scans", type=Path, metavar="DIR", help="to predict and to search (default: phantoms)")
    parser.add_argument("--count", type=int, metavar="N", help="scans that are predicted (default: 200)")
    parser.add_argument("--images", type=int, metavar="N", help="of loader and near-copies (default: 10000)")
    parser.add_argument("--many", type=int, metavar="N", help="runs that are compared (default: 1000)")
    return parser.parse_args(argv)


def _settings(arguments: argparse.Namespace) -> Settings:
    """The settings that the arguments give.

    Raises:
        UserError: a number is too small, or a folder is not there.
    """
    given = {name: getattr(arguments, name) for name in ("rounds", "count", "images", "many", "image_size", "threads")}
    numbers = {name: value for name, value in given.items() if value is not None}
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected at least 1")
    for path in (*arguments.run, *((arguments.scans,) if arguments.scans else ())):
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; give a run with --run, and a folder of scans with --scans")
    settings = replace(Settings(cpu_count()), **(_QUICK if arguments.quick else {}))
    return replace(
        settings,
        **numbers,
        tasks=tuple(arguments.task or settings.tasks),
        keras=arguments.keras,
        runs=tuple(str(path) for path in arguments.run),
        scans=str(arguments.scans) if arguments.scans else None,
    )


def _measure(part: str, settings: Settings) -> list[Figure]:
    """The figures of a part, from a process of its own.

    Raises:
        SystemExit: the part has failed, and has said why.
    """
    threads = str(settings.threads)
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "busi_lab.benchmarks.part", part, settings.to_text(), str(file)]
        code = subprocess.run(command, env=variables, check=False).returncode
        if code:
            sys.exit(code)
        found = json.loads(file.read_text(encoding="utf-8"))
    return [Figure(**{**item, "samples": tuple(item["samples"])}) for item in found]


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-bench``: exit code 0; 1 for a bug; 2 for a wrong input."""
    with exit_on_user_error():
        arguments = _arguments(argv)
        settings = _settings(arguments)
        before = read_bench(arguments.against) if arguments.against else None
        machine = this_machine()
        figures: list[Figure] = []
        for part in dict.fromkeys(arguments.parts or _DEFAULT):
            print(f"measuring {part}", file=sys.stderr, flush=True)
            figures += _measure(part, settings)
        named = f"{machine['processor']}, {settings.threads} threads, load {machine['load_before'] or 0:.1f} before"
        lines = [named, "", *table(figures)]
        if before is not None:
            lines += ["", f"beside {arguments.against}", "", *comparison(figures, before.figures)]
        print("\n".join(lines))
        if arguments.out is not None:
            _write(arguments.out, Bench(tuple(figures), machine), lines, named)


def _write(folder: Path, bench: Bench, lines: Sequence[str], machine: str) -> None:
    from busi_lab.benchmarks.plot import save_plot

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bench(folder / "bench.json", bench)
        write_atomically(folder / "bench.md", "\n".join(lines) + "\n")
        save_plot(bench.figures, folder / "bench.png", machine)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be written ({error.strerror}); choose another place") from None
    print(f"bench.json, bench.md and bench.png are in {folder}")


if __name__ == "__main__":
    main()
