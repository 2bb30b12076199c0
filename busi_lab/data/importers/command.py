"""``busi-data import``."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from busi_lab.data.formats import IMPORT_FORMATS
from busi_lab.data.importers.item import Item
from busi_lab.data.importers.source import Source
from busi_lab.data.importers.writing import summarise, write_import


def import_dataset(name: str, root: Path, out: Path, how: str | None = None) -> None:
    """Write a dataset of a known format as a folder with ``labels.csv``, and say what was taken.

    Args:
        name: of :data:`~busi_lab.data.formats.IMPORT_FORMATS`.
        root: the dataset.
        out: new or empty folder.
        how: as :func:`~busi_lab.data.importers.writing.write_import`.

    Raises:
        UserError: the folder is not of this format, or ``out`` cannot be written.
    """
    read: Callable[[Source], Iterator[Item]] = import_module(f"busi_lab.data.importers.{name}").read
    source = Source(root, IMPORT_FORMATS[name])
    for line in summarise(source, write_import(source, read(source), out, how), out):
        print(line)
