"""Who visits the page: a folder for each, which vanishes when the visitor leaves."""

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path


class Visits:
    """The visitors' folders. Methods may be called from any thread.

    Args:
        root: for all of them.
        copies: where Gradio keeps copies of what it shows, which are removed when the last visitor leaves, and by
            Gradio itself after minutes.
    """

    def __init__(self, root: Path, copies: Path) -> None:
        self._root, self._copies = root, copies
        self._lock = threading.Lock()
        self._folders: dict[str, Path] = {}
        self._sent: dict[str, dict[Path, int]] = {}  # where Gradio has put what a visitor has sent, and as which inode
        self._count = 0

    def folder(self, visitor: str) -> Path:
        """The folder of a visitor; its name says nothing of them."""
        with self._lock:
            if visitor not in self._folders:
                self._count += 1
                self._folders[visitor] = self._root / f"visit-{self._count}"
                self._folders[visitor].mkdir(parents=True)
            return self._folders[visitor]

    def place(self, visitor: str) -> Path:
        """A path in that folder at which there is nothing yet."""
        folder = self.folder(visitor)
        with self._lock:
            self._count += 1
            return folder / str(self._count)

    def take(self, visitor: str, sent: Path) -> Path:
        """Take a file that a visitor has sent over into their folder; returns its new path.

        Others may have sent the same one, so it stays where it is until the last of them leaves. Gradio gives equal
        files the same path: one that was sent again meanwhile is another inode, and is left to whoever sent it.

        Raises:
            OSError: it is not there any more.
        """
        place = self.place(visitor)
        inode = sent.stat().st_ino
        try:
            os.link(sent, place)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(sent, place)
        if self._copies in sent.parents:  # example scans stay
            with self._lock:
                self._sent.setdefault(visitor, {})[sent] = inode
        return place

    def leave(self, visitor: str) -> None:
        """Remove all that a visitor has sent or was given."""
        with self._lock:
            folder = self._folders.pop(visitor, None)
            sent = self._sent.pop(visitor, {})
            others = {path for paths in self._sent.values() for path in paths}
            for path, inode in sent.items():
                with suppress(OSError):
                    if path not in others and path.stat().st_ino == inode:
                        path.unlink()
            alone = not self._folders
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for item in self._copies.glob("*") if alone else ():
            if item.is_dir():
                shutil.rmtree(item, ignore_errors=True)
            else:
                item.unlink(missing_ok=True)
