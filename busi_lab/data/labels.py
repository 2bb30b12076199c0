"""A folder with a table ``labels.csv`` -> the files of each image; no image is opened.

The table has a row an image. Its columns, which commas, semicolons or tabs separate:

- ``file``: the scan, by its path in the folder. Links to files elsewhere are followed.
- ``label``: its class, empty or left out where it is not known. Capitals do not matter; ``data.label_map`` names
  further words.
- ``mask_file``: empty or left out where no mask is known; several files are separated by ``|``, or by ``;``.
- ``patient``, or one of its other names (:mod:`busi_lab.data.label_columns`): keeps scans together in grouped splits.
- ``spacing``: millimetres per pixel, as ``0.1``, or of rows and columns, as ``0.1x0.12``; the file's own counts less.
- any other: is kept.

``data.labels=FILE`` takes the table from elsewhere, for folders that cannot be written to.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.dataset import read_classes
from busi_lab.data.label_columns import LabelColumns, find_columns
from busi_lab.data.label_words import LabelWords
from busi_lab.data.options import AS_FOUND, LABELS, DatasetOptions
from busi_lab.data.spacing import parse_spacing
from busi_lab.data.text_table import TableError, TextTable, known, read_table
from busi_lab.errors import UserError, one_line
from busi_lab.plurals import counted

_BETWEEN_MASKS = re.compile(r"[;|]")
_SIMILAR = re.compile(r"(labels?|annotations?|metadata|meta|cases|dataset)\.(csv|tsv|txt|xlsx|xls|ods)", re.IGNORECASE)


@dataclass
class Listing:
    """What a table says: its images in lexicographic order of file, what is wrong, and what should be known."""

    cases: list[CaseFiles] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def similar_tables(folder: Path) -> str:
    """A sentence on files that may be meant as ``labels.csv`` and have another name; empty without any."""
    try:
        names = sorted(path.name for path in folder.iterdir() if _SIMILAR.fullmatch(path.name) and path.is_file())
    except OSError:
        return ""
    names = [name for name in names if name != LABELS]
    if not names:
        return ""
    if sheets := [name for name in names if name.lower().endswith((".xlsx", ".xls", ".ods"))]:
        return f"{sheets[0]} is a spreadsheet: save it as {LABELS}, CSV in UTF-8"
    return f"{names[0]} is taken if it is renamed to {LABELS}, or named by data.labels={folder / names[0]}"


def read_labels(root: Path, options: DatasetOptions = AS_FOUND) -> Listing:
    """The rows of the table of a folder.

    Raises:
        UserError: ``data.labels`` is no file, or ``data.label_map`` names no class of the dataset.
    """
    path = options.table(root)
    if options.labels is not None and not path.is_file():
        raise UserError(f"data.labels={options.labels}: expected a table, found no such file; correct the path")
    words = LabelWords(read_classes(root), options.label_map)
    try:
        if complaint := _broken_link(path):
            raise TableError(complaint)
        text = read_table(path)
        columns = find_columns(text.heading, text.separator)
    except TableError as error:
        return Listing(defects=[Defect(options.table_name, str(error))])
    listing = _Reader(root, options.table_name, text, columns, words).read()
    listing.notes += [f"{options.table_name}: {note}" for note in columns.notes]
    if columns.patient and "patient" not in columns.patient.lower() and len(listing.cases) > 1:
        listing.notes += _useless(options.table_name, columns.patient, listing.cases)
    listing.notes += [f"data.label_map: no row has the label '{word}'" for word in words.unused.values()]
    return listing


def _useless(table: str, column: str, cases: list[CaseFiles]) -> list[str]:
    """Say where a column that should keep scans together has another value in each row."""
    patients = [case.patient for case in cases if case.patient]
    if len(patients) < 2 or len(set(patients)) < len(patients):
        return []
    return [f"{table}: the column {column} has another value for each scan, so it keeps none together"]


class _Reader:
    """Reads rows one after the other and remembers what it has seen."""

    def __init__(self, root: Path, name: str, text: TextTable, columns: LabelColumns, words: LabelWords) -> None:
        self._root, self._name, self._text, self._columns, self._words = root, name, text, columns, words
        self._without_lesion = read_classes(root).without_lesion
        self._listed: dict[str, tuple[str, int]] = {}  # case id -> file and line
        self._unknown: dict[str, list[int]] = {}

    def read(self) -> Listing:
        listing = Listing()
        width = len(self._text.heading)
        for line, row in self._text.rows:
            place = f"{self._name}, line {line}"
            if len(row) != width:
                advice = f"{self._text.separator} separate cells: put a cell that holds one into double quotes"
                message = f"expected {counted(width, 'cell')}, found {len(row)}; {advice}"
                listing.defects.append(Defect(place, message))
                continue
            case, complaints = self._read_row(line, dict(zip(self._text.heading, row, strict=True)))
            listing.defects += [Defect(place, complaint) for complaint in complaints]
            if case is None:
                continue
            if case.case_id in self._listed:
                other, before = self._listed[case.case_id]
                twin = f"'{case.image}' stands in line {before} already; list each file once"
                if other != case.image:
                    twin = f"'{case.image}' and '{other}' of line {before} are both named {case.case_id}; rename one"
                listing.defects.append(Defect(place, twin))
                continue
            self._listed[case.case_id] = case.image, line
            listing.cases.append(case)
        if self._unknown:
            listing.defects.insert(0, Defect(self._name, self._words.complain(self._unknown)))
        if not self._listed and not listing.defects:
            listing.defects.append(Defect(self._name, "the table names no image"))
        listing.cases.sort(key=lambda case: case.image)
        return listing

    def _read_row(self, line: int, cells: Mapping[str, str]) -> tuple[CaseFiles | None, list[str]]:
        """The files of one row as far as they are sound, None without a scan, and what is wrong with it."""
        columns = self._columns
        image, *masks = (_plain_path(name) for name in (cells[columns.file], *self._mask_names(cells)))
        if not image:
            return None, ["file is empty; expected the path of an image in this folder"]
        complaints = []
        found: dict[str, str] = {}  # as the table writes it -> as the disk does
        for name in dict.fromkeys((image, *filter(None, masks))):
            found[name], complaint = _look_up(self._root, name)
            complaints += [complaint] if complaint else []
        if image in masks:
            complaints.append(f"'{image}' is named as its own mask; name the mask file, or none")
        spacing = None
        if columns.spacing and (cell := known(cells[columns.spacing])):
            try:
                spacing = parse_spacing(cell)
            except ValueError as error:
                complaints.append(str(error))
        label = self._label(line, cells[columns.label] if columns.label else "")
        if not found[image]:
            return None, complaints
        files = tuple(dict.fromkeys(found[name] for name in masks if name and found[name]))
        return CaseFiles(
            unicodedata.normalize("NFC", str(PurePosixPath(image).with_suffix(""))),
            label,
            found[image],
            files,
            mask_known=bool(files) or (bool(label) and label == self._without_lesion),
            patient=known(cells[columns.patient]) if columns.patient else "",
            further=tuple((name, known(cells[name])) for name in columns.further),
            spacing=spacing,
        ), complaints

    def _mask_names(self, cells: Mapping[str, str]) -> list[str]:
        return _BETWEEN_MASKS.split(cells[self._columns.masks]) if self._columns.masks else []

    def _label(self, line: int, cell: str) -> str:
        """The class that a cell means; one that is not known is remembered, and taken for none."""
        label = self._words.find(cell)
        if label is None and known(cell):
            self._unknown.setdefault(cell, []).append(line)
        return label or ""


def _plain_path(name: str) -> str:
    return str(PurePosixPath(name.strip().replace("\\", "/"))) if known(name.strip()) else ""


def _look_up(root: Path, name: str) -> tuple[str, str]:
    """A name of a file in the folder as the disk writes it, or nothing and what is wrong with it."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "", f"'{name}' leaves the folder; expected a path within it, without .."
    forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
    try:
        for form in forms:
            if (root / form).is_file():
                return form, ""
        complaint = _broken_link(root / name, root)
    except (OSError, RuntimeError, ValueError) as error:
        return "", f"'{name}' cannot be looked up ({one_line(error)}); correct the path"
    return "", f"'{name}' {complaint}" if complaint else f"'{name}' is missing; restore the file or correct the path"


def _broken_link(path: Path, root: Path | None = None) -> str:
    """Where a link leads that is no file's path, and how such files are fetched; empty where no link is broken."""
    for link in (path, *(path.parents if root else ())):
        if link == root:
            break
        if link.is_symlink() and not link.exists():
            target = str(link.readlink())
            return f"is a link to {target}, which is not there; fetch the file ({_command(target)}) or put it there"
    return ""


def _command(target: str) -> str:
    """What fetches the file that a link leads to, by the cache in which it should be."""
    places = {"annex/objects": "git annex get", ".dvc": "dvc pull", "huggingface": "hf download", "hub": "hf download"}
    parts = target.replace("\\", "/")
    return next((command for place, command in places.items() if place in parts), "dvc pull, git annex get")
