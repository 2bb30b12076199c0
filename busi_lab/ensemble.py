"""busi-ensemble: several finished runs -> one that answers with the mean of their probabilities."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from busi_lab.errors import OneLineParser, exit_on_user_error
from busi_lab.run_directory import finished_runs


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-ensemble",
        description="Make one run of several: its probabilities are the mean of theirs. busi-predict, busi-eval and "
        "busi-compare take it as any run.",
        epilog="What any member has learnt from counts as learnt. It is tested on the images that all members have in "
        "their test sets: of one split all, of the folds of a cross-validation none. Exit code 2 for a wrong input.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a finished run, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder for the ensemble")
    parser.add_argument("--name", help="of its experiment (default: ensemble of the members' names)")
    parser.add_argument(
        "--weights",
        choices=("equal", "fit"),
        default="equal",
        help="shares of the members: equal, or fitted on validation images that all have in common (default: equal)",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the members' data, where it has moved")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: auto)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-ensemble``: exit code 0; 1 for a bug; 2 for a wrong input."""
    with exit_on_user_error():
        arguments = _arguments(argv)
        runs = list(dict.fromkeys(finished_runs(arguments.runs)))
        options = ["--weights", "fit"] if arguments.weights == "fit" else []
        command = shlex.join(["busi-ensemble", *map(str, arguments.runs), *options])
        from busi_lab.run.ensemble import make_ensemble  # torch and its company take seconds: not for --help

        _, lines = make_ensemble(
            runs,
            arguments.out,
            arguments.name,
            arguments.weights == "fit",
            arguments.root,
            arguments.device,
            command,
        )
        print("\n".join([*lines, f"run directory: {arguments.out}"]))


if __name__ == "__main__":
    main()
