"""``busi-compare``: run directories to ranked tables and plots, from their files alone."""

import argparse
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from busi_lab.errors import UserError, exit_on_user_error
from busi_lab.report.render import records, render_markdown, render_text
from busi_lab.report.tables import Comparison, build
from busi_lab.run_directory import write_atomically, write_rows

TABLE_CSV = "table.csv"
TABLE_MARKDOWN = "table.md"
_OWN_PLOT = re.compile(r"table\d+_(metrics|confusion|curves)\.png")


def compare(folders: Sequence[Path], out: Path, plots: bool = True) -> Comparison:
    """Compare all runs at or below ``folders`` and write tables and plots into ``out``.

    Files of an earlier comparison in ``out`` are replaced, and its plots that no longer have a table removed.

    Raises:
        UserError: no folder, no run, no finished run (then nothing is written), or ``out`` cannot be written.
    """
    comparison = build(folders)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in out.iterdir():
            if _OWN_PLOT.fullmatch(path.name):
                path.unlink()
        drawn = {}
        if plots:
            from busi_lab.report.plots import draw  # matplotlib costs a second: only where it is used

            drawn = draw(comparison, out)
        columns, rows = records(comparison)
        write_rows(out / TABLE_CSV, rows, columns)
        write_atomically(out / TABLE_MARKDOWN, render_markdown(comparison, drawn))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); choose another folder with --out") from None
    return comparison


def main(argv: Sequence[str] | None = None) -> None:
    """The console script: compare, print the ranking, the failures and where the files are."""
    parser = argparse.ArgumentParser(
        prog="busi-compare",
        description="Compare runs: rank them by validation, show their test figures beside the paper's.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="run directory, or a folder of them"
    )
    parser.add_argument("--out", type=Path, help="where the files go (default: DIR/comparison)")
    parser.add_argument("--no-plots", action="store_true", help="tables only")
    arguments = parser.parse_args(argv)
    folders: list[Path] = arguments.folders
    out: Path = arguments.out or (folders[0] if len(folders) == 1 else Path()) / "comparison"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode still gets its table
    with exit_on_user_error():
        comparison = compare(folders, out, plots=not arguments.no_plots)
        print(render_text(comparison))
        print(f"{TABLE_MARKDOWN}, {TABLE_CSV}{'' if arguments.no_plots else ' and plots'} are in {out}")


if __name__ == "__main__":
    main()
