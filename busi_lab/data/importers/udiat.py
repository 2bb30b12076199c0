"""UDIAT, which is also called BUS or Dataset B: 163 scans from Sabadell, one machine.

Yap et al., Automated Breast Ultrasound Lesions Detection Using Convolutional Neural Networks, IEEE Journal of
Biomedical and Health Informatics 22:1218, 2018; given on request. As published with the data::

    DatasetB.xlsx          Image (the number), Type (Benign or Malignant), ...
    original/000001.png
    GT/000001.png

Instead of the table, ``benign.txt`` and ``malignant.txt`` may list names or numbers, one a line. Patients are
not known.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from busi_lab.classes import BUSI
from busi_lab.data.importers.item import Item
from busi_lab.data.importers.pairs import pair
from busi_lab.data.importers.source import Source, shown
from busi_lab.data.importers.tables import find_table, has_table, unique

_TABLES = ("datasetb.xlsx", "datasetb.csv")
_COLUMNS = ("image", "type")
_LISTS = {f"{label}.txt": label for label in BUSI.names}


def read(source: Source) -> Iterator[Item]:
    """The scans of UDIAT; without table and lists their labels are empty.

    Raises:
        UserError: a folder is missing, or the table lacks its columns.
    """
    images, masks = source.images_in({"original"}), source.images_in({"gt"})
    if not images or not masks:
        raise source.refuse("the folders original and GT")
    said = _from_table(source) if has_table(source, _TABLES) else _from_lists(source)
    if not said:
        source.leave("labels", "neither DatasetB.xlsx nor benign.txt and malignant.txt: all are empty")
    for image, outlines in pair(source, images, masks):
        label, further = said.pop(_key(image), ("", {}))
        if not label:
            source.leave(image, "no label is known")
        yield Item(PurePosixPath(image).stem, image, outlines, label, further=further)
    for key in said:
        source.leave(f"labels, {key}", "has no image")


def _key(name: str) -> str:
    """What numbers of the table and names of files have in common: 1, and 000001.png."""
    stem = PurePosixPath(name.strip().replace("\\", "/")).stem
    return stem.lstrip("0") or "0" if stem.isascii() and stem.isdigit() else stem.casefold()


def _from_table(source: Source) -> dict[str, tuple[str, dict[str, str]]]:
    table = find_table(source, _COLUMNS, _TABLES)
    return {
        _key(row["image"]): (row.label(source, "type"), row.further(*_COLUMNS))
        for row in unique(source, table, "image")
    }


def _from_lists(source: Source) -> dict[str, tuple[str, dict[str, str]]]:
    said: dict[str, set[str]] = defaultdict(set)
    for name in source.ending(*_LISTS):
        label = _LISTS.get(name.lower().rsplit("/", 1)[-1])
        if label is None:
            continue
        try:
            text = source.path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            source.leave(name, "is no text in UTF-8")
            continue
        source.use(name, "table")
        for line in filter(None, map(str.strip, text.splitlines())):
            said[_key(shown(line))].add(label)
    for key in [key for key, labels in said.items() if len(labels) > 1]:
        source.leave(f"labels, {key}", f"is listed as {' and '.join(sorted(said.pop(key)))}: left empty")
    return {key: (labels.pop(), {}) for key, labels in said.items()}
