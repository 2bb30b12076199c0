"""Scans of a foreign dataset -> a new folder with ``labels.csv``, written whole or not at all.

``images`` holds the scans and ``masks`` the masks, as symbolic links to the files of the source or as copies; what is
no picture there, or no mask of one colour, is written as PNG. ``import.csv`` has a line for every file of the source.

A scan that cannot be read is left out. A mask that cannot be read, has another size than its scan, is empty beside a
class with lesions, or covers the whole scan is left out, and with it all others of its scan: the lesion is not known.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from busi_lab.classes import BUSI
from busi_lab.data.dataset import DATASET
from busi_lab.data.importers.item import Item, Made, Picture
from busi_lab.data.importers.source import Entry, Source, plain_text, shown
from busi_lab.data.label_columns import SPACING_NAMES
from busi_lab.data.masks import read_mask
from busi_lab.data.names import folded
from busi_lab.data.options import LABELS
from busi_lab.data.reading import read_image
from busi_lab.data.scan import Mask, UnreadableImageError
from busi_lab.data.spacing import parse_spacing
from busi_lab.errors import UserError
from busi_lab.files import new_folder, write_json, write_rows
from busi_lab.plurals import counted

COLUMNS = ("file", "label", "mask_file", "patient", "spacing")
RECORD = "import.csv"
RECORD_COLUMNS = ("source", "used_as", "written", "note")

_UNSAFE = re.compile(r'[;|\\:*?"<>\x00-\x1f]')  # separate masks, or cannot stand in a name everywhere
_NORMAL = "normal"
_READ = {"file", "label", "maskfile", "patient", *SPACING_NAMES}  # names of columns, without signs


@dataclass(frozen=True)
class Imported:
    """What an import has written.

    Attributes:
        rows: of ``labels.csv``.
        entries: of ``import.csv``.
        copied: whether the file system refused links, so that files were copied.
    """

    rows: list[dict[str, str]]
    entries: list[Entry]
    copied: bool


def write_import(source: Source, items: Iterable[Item], out: Path, how: str | None = None) -> Imported:
    """Write a dataset.

    Args:
        source: the folder that is imported.
        items: its scans.
        out: new or empty folder, not within the source.
        how: ``link``, ``copy``, or None for links where the file system has them, and else copies.

    Raises:
        UserError: no scan can be taken, or ``out`` cannot be written or lies in the source.
    """
    if source.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out}: lies in {source.root}, which is only read; choose another place")
    with new_folder(out) as folder:
        writer = _Writer(source, folder, how)
        rows = [row for item in tqdm(items, "import", disable=None) if (row := writer.take(item))]
        if not rows:
            first = next((f" ({entry.source}: {entry.note})" for entry in source.account() if not entry.used_as), "")
            raise UserError(f"{source.root}: expected {source.kind}, and no scan could be taken{first}")
        _write_classes(source, folder, rows)
        further = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
        write_rows(folder / LABELS, rows, (*COLUMNS, *further))
        entries = source.account()
        write_rows(folder / RECORD, [vars(entry) for entry in entries], RECORD_COLUMNS)
    return Imported(rows, entries, writer.copied)


class _Writer:
    """Checks scans one after the other, and writes their files."""

    def __init__(self, source: Source, folder: Path, how: str | None) -> None:
        self._source, self._folder, self._how = source, folder, how
        self._names: dict[str, str] = {}
        self.copied = False

    def take(self, item: Item) -> dict[str, str]:
        """The row of a scan, empty where it is left out."""
        origin = _origin(item.scan)
        name = _safe(item.name)
        if other := self._names.get(folded(name)):
            why = "is listed twice" if other == origin else f"would be named {name}, as {other} is: rename one"
            self._source.leave(origin, why)
            return {}
        self._names[folded(name)] = origin
        try:
            size = self._size(item.scan)
        except UnreadableImageError as error:
            self._source.leave(origin, str(error))
            return {}
        lesion = self._lesion(item, size)
        if lesion is not None and lesion.any() and item.label == _NORMAL:
            self._source.leave(origin, f"is {_NORMAL}, but its mask has a lesion: neither is taken")
            for mask in item.masks:
                self._leave_unless_seen(_origin(mask), "of a scan that is left out")
            return {}
        image = self._write(item.scan, f"images/{name}", "scan")
        masks = []
        if lesion is not None:
            for number, mask in enumerate(item.masks):
                masks.append(self._write(mask, f"masks/{name}{f'_{number}' if number else ''}", "mask"))
        row = {"file": image, "label": item.label, "mask_file": "|".join(masks)}
        row |= {"patient": plain_text(item.patient), "spacing": self._spacing(item)}
        return row | {_further_name(column): plain_text(cell) for column, cell in item.further.items()}

    def _size(self, picture: Picture) -> tuple[int, ...]:
        pixels = picture.pixels if isinstance(picture, Made) else read_image(self._source.path(picture))
        return pixels.shape

    def _lesion(self, item: Item, size: tuple[int, ...]) -> Mask | None:
        """The united masks of a scan, or None where there are none that can be used."""
        union = np.zeros(size, np.bool_)
        problem = ""
        for mask in item.masks:
            try:
                pixels = mask.pixels if isinstance(mask, Made) else read_mask(self._source.path(mask))
            except UnreadableImageError as error:
                problem = str(error)
                break
            if pixels.shape != size:
                sizes = [f"{width} x {height}" for height, width in (size, pixels.shape)]
                problem = f"mask of another size than its scan: expected {sizes[0]}, found {sizes[1]}"
                break
            union |= pixels
        if item.masks and not problem:
            if union.all():
                problem = "the mask covers the whole scan"
            elif item.label not in ("", _NORMAL) and not union.any():
                problem = f"the mask of a {item.label} scan is empty"
        if not problem:
            return union if item.masks else None
        for mask in item.masks:
            self._source.leave(_origin(mask), f"{problem}; {_origin(item.scan)} has no known mask")
        return None

    def _spacing(self, item: Item) -> str:
        if item.spacing:
            try:
                parse_spacing(item.spacing)
            except ValueError as error:
                self._source.leave(_origin(item.scan), f"{error}; left empty")
                return ""
        return item.spacing

    def _write(self, picture: Picture, stem: str, used_as: str) -> str:
        """Write a picture, and note where its file went."""
        if isinstance(picture, Made):
            target = f"{stem}.png"
            path = self._folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = picture.pixels
            Image.fromarray(pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == np.bool_ else pixels).save(path)
            self._source.use(picture.origin, used_as, target, "converted")
        else:
            target = stem + PurePosixPath(picture).suffix.lower()
            self._place(self._source.path(picture).resolve(), self._folder / target)
            self._source.use(picture, used_as, target)
        return target

    def _place(self, file: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._how != "copy" and not self.copied:
            try:
                target.symlink_to(file)
                return
            except OSError as error:
                if self._how == "link":
                    raise UserError(f"--link: {target.name} cannot be linked ({error.strerror}); use --copy") from None
                self.copied = True
        shutil.copyfile(file, target)

    def _leave_unless_seen(self, name: str, why: str) -> None:
        if not self._source.is_accounted(name):
            self._source.leave(name, why)


def _origin(picture: Picture) -> str:
    return picture.origin if isinstance(picture, Made) else picture


def _safe(name: str) -> str:
    """A path that stays in its folder and can stand in a table."""
    parts = (_UNSAFE.sub("_", part).strip() for part in PurePosixPath(name).parts)
    return "/".join(part.replace("..", "_") if part.strip(".") == "" else part for part in parts if part)


def _further_name(column: str) -> str:
    """The name of a further column, which is none of those that ``labels.csv`` reads."""
    plain = re.sub(r"[\W_]+", "", column)
    return f"source_{column}" if plain in _READ else column


def _write_classes(source: Source, folder: Path, rows: list[dict[str, str]]) -> None:
    """Write ``dataset.json`` where there are other classes than BUSI's; a single other one is none."""
    found = sorted({row["label"] for row in rows} - {""})
    if set(found) <= set(BUSI.names):
        return
    if len({label.casefold() for label in found}) < max(2, len(found)):
        for row in rows:
            row["label"] = ""
        source.leave("labels", f"{', '.join(found)}: expected two classes at least; left empty")
        return
    roles = {"positive": BUSI.positive, "without_lesion": BUSI.without_lesion}
    write_json(
        folder / DATASET, {"classes": found, **{role: name if name in found else None for role, name in roles.items()}}
    )


def summarise(source: Source, imported: Imported, out: Path) -> Iterator[str]:
    """What a user is told of an import, a sentence a line."""
    rows = imported.rows
    labels = Counter(row["label"] for row in rows)
    counts = ", ".join(f"{count} {label or 'without a label'}" for label, count in sorted(labels.items(), reverse=True))
    patients = len({row["patient"] for row in rows} - {""})
    known = f"{counted(patients, 'patient')}" if patients else "patients are not known"
    yield f"{counted(len(rows), 'scan')} ({counts}); {sum(bool(row['mask_file']) for row in rows)} with a mask; {known}"
    uses = Counter(source.uses())
    used = ", ".join(counted(uses[use], use) for use in ("scan", "mask", "table") if uses[use])
    yield f"files of {source.root}: {sum(uses.values())} ({used}, {uses['']} left out)"
    notes = [entry for entry in imported.entries if not entry.used_as]
    for entry in notes[:_TOLD]:
        yield f"note: {shown(entry.source)}: {shown(entry.note)}"
    if len(notes) > _TOLD:
        yield f"and {len(notes) - _TOLD} more notes in {out / RECORD}"
    if imported.copied:
        yield "files are copied: this file system has no links"
    yield f"{out} has {LABELS}, and {RECORD} with what became of every file"
    yield f"next: busi-data check '{out}', and busi-train data=labels data.root='{out}' data.name=NAME{_advice(labels)}"


def _advice(labels: Iterable[str]) -> str:
    """What a first training needs to be told of the classes."""
    found = set(labels) - {""}
    if not found:
        return " task=segmentation model=smp"
    lesions = BUSI.lesions
    return f" 'data.classes=[{','.join(lesions)}]'" if found == set(lesions) else ""


_TOLD = 20  # notes that are printed
