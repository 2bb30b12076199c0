"""busi-app: finished runs -> a page in the browser on which scans are dropped."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from busi_lab.errors import OneLineParser, UserError, exit_on_user_error
from busi_lab.run_directory import finished_runs

if TYPE_CHECKING:
    from busi_lab.app.desk import Desk
    from busi_lab.app.visits import Visits


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-app",
        description="Serve a page on which scans are dropped, and shown with what runs say of them. Research only: not "
        "a medical device.",
        epilog="Several runs are shown side by side. Nothing leaves this computer, and files are deleted when the page "
        "is closed. Exit code 2 for a wrong input.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a finished run, an ensemble, an exported run"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to bind to (default: 127.0.0.1, this computer alone)"
    )
    parser.add_argument("--port", type=int, default=7860, help="0 for a free one (default: 7860)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument(
        "--sets",
        type=float,
        default=0.9,
        metavar="COVERAGE",
        help="of prediction sets: 0.8, 0.9 or 0.95 (default: 0.9)",
    )
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="folder in which corrected scans are kept, for data=labels"
    )
    parser.add_argument(
        "--no-training-scans",
        action="store_true",
        help="look for no near-copies among the training scans, which must be described first",
    )
    parser.add_argument(
        "--max-megabytes", type=int, default=100, metavar="N", help="of a file that is dropped (default: 100)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-app``: exit code 0; 1 for a bug; 2 for a wrong input."""
    with exit_on_user_error():
        arguments = _arguments(argv)
        if not 0 <= arguments.port <= 65535:
            raise UserError(f"--port {arguments.port}: expected 0 to 65535")
        if arguments.max_megabytes < 1:
            raise UserError(f"--max-megabytes {arguments.max_megabytes}: expected at least 1")
        runs = list(dict.fromkeys(finished_runs(arguments.runs)))
        from busi_lab.app.server import LOOPBACK, bind, serve  # torch takes seconds: not for --help

        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("busi_lab").setLevel(logging.INFO)
        listener = bind(arguments.host, arguments.port)

        def make_desk(visits: "Visits") -> "Desk":
            from busi_lab.app.corrections import Corrections
            from busi_lab.app.desk import Desk
            from busi_lab.app.models import common_classes, load_models

            models = load_models(runs, arguments.device, arguments.sets, not arguments.no_training_scans)
            corrections = None
            if arguments.save is not None:
                common_classes(models, f"--save {arguments.save}")
                corrections = Corrections(arguments.save, models[0].summary.data.roles)
            return Desk(models, visits, corrections)

        def ready(address: str) -> None:
            print(f"serving {', '.join(run.name for run in runs)} at {address} until Ctrl-C; research only", flush=True)
            if arguments.host not in LOOPBACK:
                print("note: whoever reaches this computer can use the page; it asks for no password", file=sys.stderr)

        serve(make_desk, listener, arguments.host, arguments.max_megabytes, ready)


if __name__ == "__main__":
    main()
