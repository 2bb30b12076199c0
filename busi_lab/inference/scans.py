"""Which files are predicted, and what the files that are written for them are called."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from busi_lab.data.foreign import foreign_format, may_be_foreign
from busi_lab.data.reading import SUFFIXES, is_scan_file
from busi_lab.data.scan import EXPECTED
from busi_lab.errors import UserError
from busi_lab.plurals import counted

_MASK_NAME = re.compile(r"(?P<scan>.+)_mask(_\d+)?$")
_FRAME_NAME = re.compile(r"(?P<file>.+)_frame\d{4,}$")


@dataclass(frozen=True)
class ScanFile:
    """A file to predict, and the name that what is written for it begins with."""

    path: Path
    name: str


def list_scans(paths: Sequence[Path]) -> tuple[list[ScanFile], str]:
    """The scans that ``paths`` mean: files as they are, folders with all below them.

    A folder's mask files in BUSI's naming, and files that are no images by their ending, are left out.

    Returns:
        The files in order, under names that differ, and in words how many were left out.

    Raises:
        UserError: a path does not exist, or there is no scan at all.
    """
    found: list[tuple[Path, str]] = []
    masks = others = 0
    foreign = ""  # what the first file of another known format is
    for path in paths:
        if path.is_file():
            found.append((path, path.name))
            continue
        if not path.is_dir():
            raise UserError(f"{path}: no such file or folder; give scans, or folders of them")
        everything = [item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")]
        files = sorted(item for item in everything if is_scan_file(item))
        first = next((item for item in sorted(everything) if not foreign and may_be_foreign(item)), None)
        foreign = f"{first.name}: {foreign_format(first)}" if first else foreign
        others += len(everything) - len(files)
        stems = {item.with_suffix("") for item in files}
        for item in files:
            match = _MASK_NAME.fullmatch(item.stem)
            if match and item.with_name(match["scan"]) in stems:
                masks += 1
            else:
                found.append((item, item.relative_to(path).as_posix()))
    if not found:
        expected = f"no scan found; {foreign or f'{EXPECTED} files'}"
        raise UserError(f"{', '.join(map(str, paths))}: {expected}")
    left_out = [counted(masks, "mask file")] if masks else []
    left_out += [f"{counted(others, 'file')} of {'another kind' if others == 1 else 'other kinds'}"] if others else []
    words = " and ".join(left_out)
    words += f" ({foreign})" if foreign else ""
    return [ScanFile(path, name) for (path, _), name in zip(found, _distinct_names(found), strict=True)], words


def _distinct_names(found: Sequence[tuple[Path, str]]) -> list[str]:
    """A name for each file and its path below the folder that was given; two never mean the same output file."""
    plain = [name[: -len(path.suffix)] if path.suffix.lower() in SUFFIXES else name for path, name in found]
    stems = {name.lower() for name in plain}  # some file systems know no capitals
    taken: set[str] = set()

    def is_free(name: str) -> bool:
        frame = _FRAME_NAME.fullmatch(name)
        return name not in taken and not (frame and frame["file"] in stems)

    names = []
    for (_, relative), stem in zip(found, plain, strict=True):
        wished = chain([stem, relative.replace(".", "_")], (f"{stem}-{number}" for number in count(2)))
        names.append(next(name for name in wished if is_free(name.lower())))
        taken.add(names[-1].lower())
    return names
