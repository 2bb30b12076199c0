"""The commands of ``busi-data`` on datasets, from ``check`` to ``export``.

Each imports what it needs when it runs, so that ``--help`` is instant.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from busi_lab.classes import BUSI
from busi_lab.errors import UserError, one_line
from busi_lab.files import new_folder, write_rows
from busi_lab.plurals import counted

if TYPE_CHECKING:
    from busi_lab.data.index import Case
    from busi_lab.data.options import DatasetOptions

COLUMNS = ("case_id", "label", "image", "masks", "height", "width", "lesion_pixels", "content_hash")
"""Columns of ``busi-data index``, before the patient where one is known."""


def check(root: str, options: "DatasetOptions") -> bool:
    """Print what a dataset holds, and every defect and note, one a line.

    Returns:
        Whether there is no defect.

    Raises:
        UserError: there is no dataset folder to look into.
    """
    from busi_lab.data.index import inspect_dataset

    index, defects, notes = inspect_dataset(root, options)
    counts = ", ".join(f"{count} {label}" for label, count in index.counts.items())
    print(f"dataset: {index.root}")
    if unlabelled := sum(not case.label for case in index.cases):
        counts += f", {unlabelled} without a label"
    print(f"images: {len(index.cases)} ({counts})")
    print(f"mask files: {sum(len(case.masks) for case in index.cases)}")
    print(f"images with several masks: {sum(len(case.masks) > 1 for case in index.cases)}")
    if without := index.classes.without_lesion:
        empty = sum(case.label == without and not case.lesion_pixels for case in index.cases)
        print(f"{without} images with an empty mask: {empty} of {index.counts[without]}")
    if unmasked := sum(not case.mask_known for case in index.cases):
        print(f"images without a known mask: {unmasked}")
    if patients := {case.patient for case in index.cases} - {""}:
        print(f"patients: {len(patients)}")
    if index.cases:
        by_area = sorted(index.cases, key=lambda case: (case.width * case.height, case.width))
        named = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}
        sizes = ", ".join(f"{name} {case.width} x {case.height}" for name, case in named.items())
        print(f"image sizes (width x height, by area): {sizes}")
    print(f"digest: {index.digest}")
    if defects:
        print("the figures above are of the images that could be read")
    for kind, found in (("note", notes), ("defect", defects)):
        for item in found:
            print(f"{kind}: {one_line(Exception(item))}")
    if notes:
        print(counted(len(notes), "note"))
    print(counted(len(defects), "defect"))
    return not defects


def describe(root: str, out: Path, options: "DatasetOptions") -> None:
    """Draw a dataset into PNG files in ``out`` and print the table beside them.

    Raises:
        UserError: the dataset has a defect or too few images to split, or ``out`` cannot be written.
    """
    _refuse_unwritable(out, out)
    from busi_lab.data import describe as drawing
    from busi_lab.data.index import index_dataset

    index = index_dataset(root, options=options)
    text = drawing.table(index)
    pictures = drawing.draw(index)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in pictures.items():
            partial = out / f".{name}.partial"
            try:
                partial.write_bytes(content)
                partial.replace(out / name)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(out, one_line(error)) from None
    print(text)
    print(f"{', '.join(pictures)} are in {out}")


def write_index(root: str, out: Path | None, options: "DatasetOptions") -> None:
    """Write one CSV row per image to ``out``, or to stdout.

    Raises:
        UserError: the dataset has a defect, or ``out`` cannot be written.
    """
    if out is not None:
        _refuse_unwritable(out, out.parent)
        if out.is_dir():
            raise _unwritable(out, "it is a folder; expected a file name such as index.csv")
    from busi_lab.data.index import index_dataset

    rows = list(_rows(index_dataset(root, options=options).cases))
    columns = list(rows[0])
    if out is None:
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    try:
        write_rows(out, rows, columns)
    except OSError as error:
        raise _unwritable(out, one_line(error)) from None
    print(f"{out} lists {counted(len(rows), 'image')}")


def _rows(cases: Sequence["Case"]) -> Iterator[dict[str, object]]:
    patients = {"patient"} if any(case.patient for case in cases) else set()
    for case in cases:
        row = {column: getattr(case, column) for column in (*COLUMNS, *patients)}
        yield row | {"masks": ";".join(case.masks)}


def duplicates(root: str, out: Path, options: "DatasetOptions") -> None:
    """Write the groups of near-identical images and their contact sheets to ``out`` and print their numbers.

    Raises:
        UserError: the dataset has a defect, or ``out`` holds files or cannot be written.
    """
    started = time.monotonic()
    with new_folder(out) as folder:
        from busi_lab.data.describe import draw_groups
        from busi_lab.data.duplicates import find_groups
        from busi_lab.data.groups import GROUPS, write_groups
        from busi_lab.data.index import index_dataset

        index = index_dataset(root, options=options)
        groups = find_groups(index)
        write_groups(folder / GROUPS, groups, index)
        sheets = 0
        for sheets, content in enumerate(draw_groups(groups, index), start=1):
            (folder / f"groups_{sheets:02}.png").write_bytes(content)
    members = sum(len(group.cases) for group in groups)
    labels, masks = (sum(kind in group.conflict for group in groups) for kind in ("label", "mask"))
    print(f"{counted(len(groups), 'group')} with {members} of {len(index.cases)} images; the others are in none")
    print(f"groups of several labels: {labels}; groups whose masks disagree: {masks}")
    pictures = f" and {sheets} contact sheet{'' if sheets == 1 else 's'}" if sheets else ""
    print(f"{GROUPS}{pictures} are in {out}; it took {time.monotonic() - started:.0f} s")


def phantom(root: Path, counts: dict[str, int], seed: int, height: int, width: int) -> None:
    """Write a dataset of speckle phantoms and say where it is.

    Raises:
        UserError: as :func:`busi_lab.data.phantom.generate_phantoms`.
    """
    from busi_lab.data.phantom import generate_phantoms

    generate_phantoms(root, counts, seed, height, width)
    print(f"{sum(counts.values())} phantoms are in {root}; look at them with: busi-data check '{root}'")


def fetch(root: Path, source: str | None) -> None:
    """Download and verify BUSI and say where it is.

    Raises:
        UserError: as :func:`busi_lab.data.download.download`.
    """
    from busi_lab.data.download import BUSI, download

    folder = download(root, source)
    print(f"{BUSI} are in {folder}; to use them: export BUSI_ROOT='{folder.absolute()}'")


def propose(root: Path, out: Path | None) -> None:
    """Write a table of labels that the names below a folder suggest to ``out``, or to stdout.

    Raises:
        UserError: there is no scan, or ``out`` is there already or cannot be written.
    """
    if out is not None:
        _refuse_unwritable(out, out.parent)
        if out.exists() or out.is_symlink():
            raise _unwritable(out, "it is there already and is not overwritten")
    from busi_lab.data.proposal import COLUMNS, propose_labels

    rows, remarks = propose_labels(root)
    if out is None:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        try:
            write_rows(out, rows, COLUMNS)
        except OSError as error:
            raise _unwritable(out, one_line(error)) from None
        remarks.append(f"{out} proposes labels for {counted(len(rows), 'image')}; read it before you use it")
    for remark in remarks:
        print(remark, file=sys.stderr)


def _options(given: argparse.Namespace) -> "DatasetOptions":
    """How the dataset is to be read, of a command that reads one."""
    from busi_lab.data.label_words import plain_label_map
    from busi_lab.data.masks import lesion_value_names
    from busi_lab.data.options import DatasetOptions

    pairs: dict[str, str] = {}
    for item in filter(None, map(str.strip, getattr(given, "label_map", "").split(","))):
        word, sign, meant = item.rpartition("=")
        if not sign or not word.strip():
            raise UserError(f"--label-map: expected pairs as Benign=benign,M=malignant, found '{item}'")
        pairs[word.strip()] = meant.strip()
    values = [value for value in getattr(given, "lesion_values", "").split(",") if value.strip()]
    lesions = lesion_value_names(values, "--lesion-values")
    return DatasetOptions(
        getattr(given, "labels", None), plain_label_map(pairs), lesions, getattr(given, "layout", "auto")
    )


def _refuse_unwritable(out: Path, folder: Path) -> None:
    """Look, before the work starts, whether ``folder`` is there or can be made."""
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise _unwritable(out, f"{nearest} is a file, expected a folder")
    if not os.access(nearest, os.W_OK):
        raise _unwritable(out, f"no permission to write into {nearest}")


def _unwritable(path: Path, reason: str) -> UserError:
    return UserError(f"--out {path} cannot be written ({reason}); choose another place")


def carry_out(given: argparse.Namespace) -> None:
    """Carry out one of these commands.

    Args:
        given: the command line, of :func:`busi_lab.data.arguments.parse_arguments`.

    Raises:
        UserError: an input is wrong.
        SystemExit: ``check`` has found a defect; code 2.
    """
    if not given.root:
        raise UserError("no dataset folder: give ROOT, or set the environment variable BUSI_ROOT")
    options = _options(given)
    if given.command == "check":
        if not check(given.root, options):
            sys.exit(2)
    elif given.command == "describe":
        describe(given.root, given.out, options)
    elif given.command == "index":
        write_index(given.root, given.out, options)
    elif given.command == "duplicates":
        duplicates(given.root, given.out, options)
    elif given.command == "labels":
        propose(given.root, given.out)
    elif given.command == "phantom":
        phantom(
            given.root,
            {label: getattr(given, label) for label in BUSI.names},
            given.seed,
            given.height,
            given.width,
        )
    elif given.command == "import":
        from busi_lab.data.importers.command import import_dataset

        import_dataset(given.format, given.root, given.out, given.how)
    elif given.command == "export":
        from busi_lab.data.exporters.command import export_dataset

        export_dataset(given.format, given.root, given.out, options)
    else:
        fetch(given.root, given.source)
