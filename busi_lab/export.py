"""busi-export: a finished run -> ONNX or OpenVINO, in a directory that is used as the run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from busi_lab.card import make_card
from busi_lab.errors import OneLineParser, exit_on_user_error, one_line
from busi_lab.hub import parse_address, push


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="busi-export",
        description="Write the network of a run for onnxruntime or OpenVINO, from gray levels to logits. busi-predict "
        "and busi-eval take the directory as that of the run.",
        epilog="A fresh process reads the files and must answer as the run does; else nothing is kept and the exit "
        "code is 1. Exit code 2 for a wrong input. Needs busi-lab[export].",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run or an ensemble")
    parser.add_argument("--to", choices=("onnx", "openvino"), required=True, help="format")
    parser.add_argument(
        "--int8", action="store_true", help="quantise for OpenVINO, calibrated on training scans of the run"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the run's data, where it has moved")
    parser.add_argument("--push", metavar="hf://USER/NAME", help="publish it on a model hub, with its card")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-export``: exit code 0; 1 where the files do not answer as the run; 2 for a wrong input."""
    with exit_on_user_error():
        arguments = _arguments(argv)
        if arguments.push is not None:
            parse_address(arguments.push)
        from busi_lab.run.export import make_export  # torch and its company take seconds: not for --help
        from busi_lab.run.parity import GateError

        try:
            lines = make_export(arguments.run, arguments.out, arguments.to, arguments.int8, arguments.root)
        except GateError as error:
            print(f"error: {arguments.run}: {one_line(error)}", file=sys.stderr)
            sys.exit(1)
        print("\n".join([*lines, f"exported run: {arguments.out}"]), flush=True)
        if arguments.push is not None:
            print(f"published: {push(arguments.out, arguments.push, make_card(arguments.run, arguments.push))}")


if __name__ == "__main__":
    main()
