"""The command line of ``busi-data``."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from busi_lab.classes import BUSI
from busi_lab.data.formats import EXPORT_FORMATS, IMPORT_FORMATS
from busi_lab.errors import OneLineParser


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; :class:`busi_lab.errors.UserError` where it is wrong."""
    parser = OneLineParser(
        prog="busi-data",
        description="Datasets: check, describe, index, deduplicate, make, import and export; and the cards of runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")

    reading = {
        "check": add("check", "count a dataset's images and list every defect; exit code 2 if there are any"),
        "describe": add("describe", "draw class balance, sizes and sample scans as PNG files"),
        "index": add("index", "list every image as CSV: class, files, size, lesion pixels, content hash"),
        "duplicates": add("duplicates", "find groups of near-identical images: a CSV file and contact sheets"),
        "export": add("export", "write scans and masks in the format of another program"),
    }
    whence = "dataset folder, or the folder above it (default: the environment variable BUSI_ROOT)"
    root = os.environ.get("BUSI_ROOT")
    for name, command in reading.items():
        if name == "export":
            command.add_argument("--root", metavar="DIR", default=root, help=whence)
        else:
            command.add_argument("root", nargs="?", metavar="ROOT", default=root, help=whence)
        command.add_argument(
            "--lesion-values",
            metavar="V,V",
            default="",
            help="gray values, as 120,255, or colours, as #0000ff, that are lesion in mask files (default: all but the "
            "background), as data.lesion_values of training",
        )
        command.add_argument("--labels", metavar="FILE", help="a table of labels outside the folder, as data.labels")
        command.add_argument(
            "--label-map", default="", metavar="A=B,...", help="what labels of the table mean, as data.label_map"
        )
        command.add_argument(
            "--layout",
            choices=("auto", "folder"),
            default="auto",
            help="folder: any images, a subfolder for each class; auto: BUSI's layout or labels.csv (auto)",
        )
    reading["describe"].add_argument("--out", type=Path, required=True, metavar="DIR", help="where the PNG files go")
    reading["duplicates"].add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new or empty folder for the CSV and PNG files"
    )
    reading["index"].add_argument("--out", type=Path, metavar="FILE", help="CSV file (default: stdout)")

    labelling = add("labels", "propose a labels.csv from the names of folders and files below a folder")
    labelling.add_argument("root", type=Path, metavar="DIR", help="folder of scans")
    labelling.add_argument("--out", type=Path, metavar="FILE", help="new CSV file (default: stdout)")

    _add_formats(reading["export"], EXPORT_FORMATS)
    importing = add("import", "write a public dataset, or one of another program, as a folder with labels.csv")
    _add_formats(importing, IMPORT_FORMATS)
    importing.add_argument("root", type=Path, metavar="DIR", help="the dataset, which is only read")
    files = importing.add_mutually_exclusive_group()
    default = "(default: links, or copies where there are none)"
    files.add_argument("--link", dest="how", action="store_const", const="link", help=f"links to its files {default}")
    files.add_argument("--copy", dest="how", action="store_const", const="copy", help="copies, so that DIR may go")

    making = add("phantom", "write speckle phantoms in BUSI's layout: no download, for demos and tests")
    making.add_argument("root", type=Path, metavar="DIR", help="new or empty folder")
    for label, count in zip(BUSI.names, (60, 50, 40), strict=True):
        making.add_argument(f"--{label}", type=int, default=count, metavar="N", help=f"{label} images ({count})")
    making.add_argument("--seed", type=int, default=0, metavar="S", help="0 or greater (0)")
    making.add_argument("--height", type=int, default=256, metavar="H", help="mean height, pixels (256)")
    making.add_argument("--width", type=int, default=320, metavar="W", help="mean width, pixels (320)")

    fetching = add("download", "fetch BUSI, verify it and only then put it in place")
    fetching.add_argument("root", type=Path, metavar="DIR", help="new or empty folder")
    fetching.add_argument(
        "--from", dest="source", metavar="FILE_OR_URL", help="zip archive (default: Kaggle, needs kagglehub)"
    )

    describing = add("card", "write the model card of a finished run, or of an ensemble, as Markdown")
    describing.add_argument("run", type=Path, metavar="RUN", help="its directory")
    describing.add_argument("--out", type=Path, metavar="FILE", help="new Markdown file (default: stdout)")
    return parser.parse_args(argv)


def _add_formats(command: argparse.ArgumentParser, formats: Mapping[str, str]) -> None:
    listed = "; ".join(f"{name} ({what})" for name, what in formats.items())
    command.add_argument("format", choices=formats, metavar="FORMAT", help=listed)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
