"""The folder that is imported: its files, and what becomes of each."""

import os
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from busi_lab.classes import BUSI
from busi_lab.data.dataset import CLASS_NAME
from busi_lab.data.names import folded, is_image_name, is_system_file
from busi_lab.errors import UserError

_SHOWN = 3  # files that an error names
_LONGEST = 200  # characters of a text of somebody else in a message


@dataclass(frozen=True)
class Entry:
    """What became of a file, or of a row of a table.

    Attributes:
        source: the file by its path in the folder, or ``TABLE, line N``.
        used_as: ``scan``, ``mask``, ``table``; empty where it is left out.
        written: path of what was written; empty for none.
        note: why it is left out, or what should be known.
    """

    source: str
    used_as: str
    written: str
    note: str


class Source:
    """A folder of somebody else, which is only read.

    Args:
        root: the folder.
        kind: what it should be, for errors.

    Raises:
        UserError: no such folder, or no file in it.
    """

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        if not root.is_dir():
            raise UserError(f"{root}: expected a folder to import, found {'a file' if root.exists() else 'nothing'}")
        self.files, self._others = _list(root)
        if not self.files:
            raise UserError(f"{root}: expected {kind}, found no file; check the path")
        self._entries: list[Entry] = []
        self._seen: set[str] = set()
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self._by_path[folded(name)].append(name)
            self._by_name[folded(PurePosixPath(name).name)].append(name)

    def path(self, name: str) -> Path:
        """Where a file of this folder is."""
        return self.root / name

    def refuse(self, expected: str) -> UserError:
        """The error that the folder is not of this format at all."""
        shown = ", ".join(self.files[:_SHOWN])
        more = f" and {len(self.files) - _SHOWN} more" if len(self.files) > _SHOWN else ""
        return UserError(f"{self.root}: expected {self.kind}: {expected}; found {shown}{more}; check path and format")

    def ending(self, *endings: str) -> list[str]:
        """The files with one of these endings, in small letters."""
        return [name for name in self.files if name.lower().endswith(endings)]

    def images_in(self, folders: Collection[str]) -> dict[str, list[str]]:
        """The images that lie in a folder of one of these names, or below it: name without ending -> files.

        Args:
            folders: names in small letters.
        """
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            path = PurePosixPath(name)
            if is_image_name(path) and any(folded(part) in folders for part in path.parts[:-1]):
                found[folded(path.stem)].append(name)
        return found

    def find(self, cell: str, beside: str = "") -> tuple[str, str]:
        """The file that a table or another file names.

        The name is looked up in the list of files, first from the folder of ``beside``, then from the top, then
        anywhere by its last part; the disk is not asked, so that no name leads out of the folder.

        Returns:
            Its path in the folder, or nothing and what is wrong.
        """
        plain = cell.strip().replace("\\", "/")
        path = PurePosixPath(plain)
        if not path.parts:
            return "", "no file is named"
        if path.is_absolute() or PureWindowsPath(plain).is_absolute() or ".." in path.parts:
            return "", f"'{shown(plain)}' leads out of the folder"
        for base in (PurePosixPath(beside).parent, PurePosixPath()):
            if found := _best(self._by_path.get(folded(str(base / path)), []), str(base / path)):
                return found, ""
        several = self._by_name.get(folded(path.name), [])
        if len(several) > 1:
            return "", f"'{shown(plain)}' may be {' or '.join(several[:_SHOWN])}"
        return (several[0], "") if several else ("", f"'{shown(plain)}' is missing")

    def use(self, name: str, used_as: str, written: str = "", note: str = "") -> None:
        """Note what a file is used for."""
        self._seen.add(name)
        self._entries.append(Entry(name, used_as, written, note))

    def leave(self, place: str, why: str) -> None:
        """Note why a file or a row is left out, or what of it is."""
        self._seen.add(place)
        self._entries.append(Entry(place, "", "", why))

    def is_accounted(self, name: str) -> bool:
        """Whether something was said of a file."""
        return name in self._seen

    def uses(self) -> list[str]:
        """What each file is used for, the first use of each; empty for those that are left out."""
        first = {entry.source: entry.used_as for entry in reversed(self._entries) if entry.used_as}
        return [first.get(name, "") for name in (*self.files, *self._others)]

    def account(self) -> list[Entry]:
        """What became of every file, those of which nothing was said among them, in order."""
        rest = [Entry(name, "", "", "no part of this format") for name in self.files if name not in self._seen]
        others = [Entry(name, "", "", why) for name, why in self._others.items()]
        return sorted([*self._entries, *rest, *others], key=lambda entry: (entry.source, entry.used_as == ""))


def _list(root: Path) -> tuple[list[str], dict[str, str]]:
    """All files below a folder in order, and what is not looked at, with the reason."""
    files: list[str] = []
    others: dict[str, str] = {}

    def name_of(path: Path) -> str:
        return path.relative_to(root).as_posix()

    def closed(error: OSError) -> None:
        others[name_of(Path(error.filename))] = f"cannot be entered ({error.strerror})"

    for folder, inner, names in os.walk(root, onerror=closed, followlinks=False):
        inner.sort()
        links = [Path(folder) / name for name in inner if (Path(folder) / name).is_symlink()]
        others |= {name_of(path): "is a linked folder, which is not entered" for path in links}
        for path in (Path(folder) / name for name in names):
            if any(is_system_file(Path(part)) for part in path.relative_to(root).parts):
                others[name_of(path)] = "hidden, or made by a file manager"
            else:
                files.append(name_of(path))
    return sorted(files), dict(sorted(others.items()))


def _best(candidates: list[str], name: str) -> str:
    if name in candidates:
        return name
    return candidates[0] if len(candidates) == 1 else ""


def plain_text(text: str) -> str:
    """A text of somebody else on one line, without what is no letter or sign."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def shown(text: str) -> str:
    """The same, as long as a message may hold."""
    return plain_text(text)[:_LONGEST]


def busi_label(word: str) -> str | None:
    """``benign``, ``malignant`` or ``normal`` in capitals of any kind, empty for nothing; None for another word."""
    plain = word.strip().casefold()
    return plain if plain in ("", *BUSI.names) else None


def class_name(word: str) -> str:
    """A foreign name of a class as one that ``dataset.json`` may hold; empty where nothing of it is left."""
    if known := busi_label(word):
        return known
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", word.strip()).strip("_-")[:40]
    return plain if CLASS_NAME.fullmatch(plain) else ""
