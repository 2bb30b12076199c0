"""``busi-compare``: run directories to a report and ranked tables, from their files alone."""

import argparse
import io
import re
import sys
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from busi_lab.errors import OneLineParser, UserError, exit_on_user_error
from busi_lab.files import write_atomically, write_rows
from busi_lab.report.results.analysis import Analysis, analyse
from busi_lab.report.results.gate import FIGURES, Key, Level, judge_against, levels_of, read_baseline
from busi_lab.report.results.reading import build
from busi_lab.report.results.speed import read_speeds
from busi_lab.report.sections.contents import sections_of
from busi_lab.report.writers.gate import exit_code, lines_of
from busi_lab.report.writers.markdown import render_markdown
from busi_lab.report.writers.plain import render_text
from busi_lab.report.writers.png import write_pictures
from busi_lab.report.writers.records import (
    abstention_records,
    columns_of,
    pair_records,
    records,
    repeat_records,
    set_records,
    system_records,
)
from busi_lab.tracking import check_trackers, publish_report

if TYPE_CHECKING:
    from busi_lab.tracking.rebuild import Sent

FORMATS = ("html", "md", "csv", "png")
REPORT = "report.html"
TABLE_CSV = "table.csv"
TABLE_MARKDOWN = "table.md"
REPEATS_CSV = "repeats.csv"
PAIRS_CSV = "pairs.csv"
PUBLISHED_CSV = "published.csv"
SETS_CSV = "prediction_sets.csv"
ABSTENTION_CSV = "abstention.csv"
_OWN_FILE = re.compile(
    r"report\.html|table\.(md|csv)|(repeats|pairs|published|prediction_sets|abstention)\.csv|(table\d+_(metrics|confusion|curves)|findings\d+|search_(history|slices)|speed)\.png"
)


def compare(
    folders: Sequence[Path],
    out: Path,
    formats: Sequence[str] = FORMATS,
    require_repeats: bool = False,
    bench: Path | None = None,
) -> Analysis:
    """Compare all runs at or below ``folders`` and write the files of ``formats`` into ``out``.

    ``bench`` is a file in which ``busi-bench`` has written how fast networks are.

    ``out`` holds one comparison: files of an earlier one are replaced or removed, other files left alone.

    Raises:
        UserError: an unknown format; no folder, no run, no finished run, folds that share test images, or a single
            run where ``require_repeats`` asks for more, or no speeds in ``bench`` (then nothing is written); or
            ``out`` cannot be written.
    """
    if not formats or not set(formats) <= set(FORMATS):
        raise UserError(f"--format: expected some of {','.join(FORMATS)}, found {','.join(formats) or 'none'}")
    speeds = None if bench is None else read_speeds(bench)
    analysis = replace(analyse(build(folders), require_repeats), speeds=speeds)
    sections = sections_of(analysis)
    texts = {}
    if "html" in formats:
        from busi_lab.report.writers.html import render_html  # Jinja costs a part of a second: only where it is used

        texts[REPORT] = render_html(sections)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as folder:
            new = Path(folder)
            drawn = write_pictures(sections, new) if "png" in formats else []
            if "md" in formats:
                texts[TABLE_MARKDOWN] = render_markdown(sections, drawn)
            for name, content in texts.items():
                write_atomically(new / name, content)
            if "csv" in formats:
                _write_tables(analysis, new)
            _replace(new, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); choose another folder with --out") from None
    return analysis


def _write_tables(analysis: Analysis, folder: Path) -> None:
    columns, rows = records(analysis)
    write_rows(folder / TABLE_CSV, rows, columns)
    further = {
        REPEATS_CSV: repeat_records(analysis),
        PAIRS_CSV: pair_records(analysis),
        PUBLISHED_CSV: system_records(analysis),
        SETS_CSV: set_records(analysis),
        ABSTENTION_CSV: abstention_records(analysis),
    }
    for name, found in further.items():
        if found:
            write_rows(folder / name, found, columns_of(found, analysis.metrics))


def _replace(new: Path, out: Path) -> None:
    """Move the files of a comparison into place, when all are written, and remove those of an earlier one."""
    names = {path.name for path in new.iterdir()}
    if folder := next((name for name in sorted(names) if (out / name).is_dir()), None):
        raise IsADirectoryError(f"{folder} is a folder there")
    for name in names:
        (new / name).replace(out / name)
    for path in out.iterdir():
        if _OWN_FILE.fullmatch(path.name) and path.name not in names:
            path.unlink()


def describe(analysis: Analysis, out: Path) -> str:
    """What was found, and the ranking, as plain text, and a last line that says which files ``out`` holds."""
    names = (TABLE_MARKDOWN, TABLE_CSV, REPEATS_CSV, PAIRS_CSV, PUBLISHED_CSV)
    tables = [name for name in names if (out / name).exists()]
    tables += ["plots"] if any(_OWN_FILE.fullmatch(path.name) for path in out.glob("*.png")) else []
    listed = " and ".join([", ".join(tables[:-1]), tables[-1]] if len(tables) > 1 else tables)
    verb = "is" if len(tables) == 1 and tables != ["plots"] else "are"
    last = f"{listed} {verb} in {out}" if listed else ""
    if (out / REPORT).exists():
        last = f"the report is {out / REPORT}" + (f"; {listed} {verb} beside it" if listed else "")
    return f"{render_text(sections_of(analysis))}\n{last}"


def show(analysis: Analysis, out: Path) -> None:
    """Print :func:`describe`; a terminal without Unicode still gets its table."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    print(describe(analysis, out))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-compare",
        description="Compare runs: rank them by validation, pool folds and seeds, test what differs.",
        epilog="With --baseline the exit code is 0 where no figure is worse by more than --tolerance, 1 where one is "
        "or where an experiment of the baseline has no test figure now, and 2 where the baseline cannot be used or an "
        "experiment has another test set. Compared are the means over the runs of an experiment (name, task, data and "
        f"protocol) of {', '.join(FIGURES)} on the test images, as far as both tables have them.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="run directory, or a folder of them")
    parser.add_argument("--out", type=Path, help="where the files go (default: DIR/comparison)")
    parser.add_argument(
        "--format",
        type=lambda listed: listed.split(","),
        default=FORMATS,
        metavar="LIST",
        help=f"what to write, separated by commas (default: {','.join(FORMATS)})",
    )
    parser.add_argument(
        "--require-repeats",
        action="store_true",
        help="refuse a comparison in which an experiment has one run alone, without further seeds or folds",
    )
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        nargs="?",
        const="",
        help="send every run below DIR, whole, and the comparison to W&B: to this project, or to that of each run",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="TABLE_CSV",
        help="table.csv of an earlier comparison: say which experiments are worse now, by the exit code as well",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        default=0.02,
        help="how much less than in the baseline a figure may be (default: %(default)s)",
    )
    parser.add_argument(
        "--bench", type=Path, metavar="BENCH_JSON", help="of busi-bench predict: show quality beside time and size"
    )
    parser.add_argument("--open", action="store_true", help=f"show {REPORT} in the web browser")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script: compare, print the ranking, the failures and where the files are."""
    with exit_on_user_error():
        arguments = _arguments(argv)
        folders: list[Path] = arguments.folders
        out: Path = arguments.out or (folders[0] if len(folders) == 1 else Path()) / "comparison"
        if arguments.open and "html" not in arguments.format:
            raise UserError("--open shows report.html: add html to --format")
        if not arguments.tolerance >= 0:
            raise UserError(f"--tolerance: expected 0 or more, found {arguments.tolerance}")
        before = read_baseline(arguments.baseline) if arguments.baseline else None  # perhaps replaced by what follows
        sent = _send_runs(folders, arguments.wandb) if arguments.wandb is not None else None
        analysis = compare(folders, out, arguments.format, arguments.require_repeats, arguments.bench)
        show(analysis, out)
        if sent is not None:
            project = arguments.wandb or next(iter(sent.projects), None)
            settings = {"project": project} if project else {}
            publish_report({"wandb": settings}, out, f"report-{out.resolve().parent.name}", {"WANDB_MODE": sent.mode})
        if arguments.open:
            webbrowser.open((out / REPORT).resolve().as_uri())
        failed = 1 if sent is not None and sent.failed else 0
        if before is not None:
            failed = _gate(before, analysis, arguments.tolerance) or failed
        if failed:
            sys.exit(failed)


def _gate(before: Mapping[Key, Level], analysis: Analysis, tolerance: float) -> int:
    """Say what is worse than in the baseline; returns the exit code."""
    verdict = judge_against(before, levels_of(records(analysis)[1]), tolerance)
    print("\n".join(lines_of(verdict, tolerance)))
    return exit_code(verdict)


def _send_runs(folders: Sequence[Path], project: str) -> "Sent":
    """Send all runs to W&B, and say what became of them; before the comparison, which needs a finished one."""
    from busi_lab.tracking.rebuild import describe as describe_sent
    from busi_lab.tracking.rebuild import send_runs

    check_trackers({"wandb": {"project": project} if project else {}})
    sent = send_runs(folders, project or None)
    print(describe_sent(sent, folders), flush=True)
    return sent


if __name__ == "__main__":
    main()
