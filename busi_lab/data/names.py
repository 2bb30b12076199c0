"""Names of files and folders, as other people and systems write them.

One name can be written in two ways: ``benign`` and ``Benign``, ``.png`` and ``.PNG``, or a letter with its accent as
one character (NFC, most systems) or as two (NFD, macOS). Such names are taken as equal where that leaves no doubt.
Files are opened by the names that they have on disk.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from busi_lab.data.reading import SUFFIXES

_MASK_NAME = re.compile(r"(?P<image>.+?)(?P<ending>_mask(?:_(?P<number>\d+))?)$", re.IGNORECASE)
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}  # of file managers, like every name with a leading dot


def normal(name: str) -> str:
    """The same name with every accented letter as one character."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """What names share that differ in capitals and accents' writing alone."""
    return normal(normal(name).casefold())


def is_system_file(path: PurePath) -> bool:
    """Whether a file or folder is hidden, or was made by a file manager."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def is_image_name(path: PurePath) -> bool:
    """Whether the ending is that of an image."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class ImageName:
    """What the name of an image file says.

    Attributes:
        image: name of the scan without ending.
        mask: of a mask file, what stands behind that, as ``_mask_1``, in small letters; empty for a scan.
    """

    image: str
    mask: str

    @property
    def number(self) -> int:
        """Place of a mask among several; 0 without a number."""
        return int(self.mask.removeprefix("_mask").removeprefix("_") or 0)


def parse_image_name(name: str) -> ImageName:
    """Read ``benign (1).png``, ``benign (1)_mask.png`` or ``benign (1)_Mask_2.PNG``."""
    stem = normal(PurePath(name).stem)
    if match := _MASK_NAME.match(stem):
        return ImageName(match["image"], match["ending"].lower())
    return ImageName(stem, "")


def class_folders(root: Path, classes: Iterable[str]) -> dict[str, list[Path]]:
    """The folders of each class, by its name in capitals of any kind; classes without one are left out."""
    by_name: dict[str, list[Path]] = {}
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            by_name.setdefault(folded(entry.name), []).append(entry)
    return {name: by_name[folded(name)] for name in classes if folded(name) in by_name}
