"""Which layout a dataset folder is read in: ``auto`` looks at what it holds, ``folder`` is any folder of images."""

from pathlib import Path

from busi_lab.classes import Classes
from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.data.image_folder import folder_classes, images_below, list_images
from busi_lab.data.layout import list_files, resolve_root
from busi_lab.data.options import DatasetOptions
from busi_lab.errors import UserError


def find_root(root: str | Path | None, options: DatasetOptions) -> Path:
    """The folder of a dataset, as :func:`busi_lab.data.layout.resolve_root`.

    Raises:
        UserError: no such folder, or not of this layout.
    """
    if options.layout != "folder":
        return resolve_root(root, options)
    if not root:
        raise UserError("data.root is not set: data=folder needs data.root=DIR, with a subfolder for each class")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.root={folder}: expected a folder with a subfolder for each class; check the path")
    folder_classes(folder)
    return folder


def classes_of(root: Path, options: DatasetOptions) -> Classes:
    """The classes of a dataset folder.

    Raises:
        UserError: it does not name them soundly.
    """
    return folder_classes(root) if options.layout == "folder" else read_classes(root)


def list_cases(root: Path, options: DatasetOptions) -> tuple[list[CaseFiles], list[Defect]]:
    """The images and masks of a dataset folder, in their order, and what does not fit; none is opened."""
    return list_images(root) if options.layout == "folder" else list_files(root, options)


def files_of(root: Path, options: DatasetOptions) -> list[Path]:
    """All files that a dataset is read from."""
    own = [root / DATASET] if (root / DATASET).exists() else []
    if options.layout == "folder":
        return [*own, *(path for name in folder_classes(root).names for path in images_below(root / name))]
    if not options.has_table(root):
        folders = (entry for entry in sorted(root.iterdir()) if entry.is_dir())
        return [*own, *(path for folder in folders for path in sorted(folder.iterdir()))]
    cases, _ = list_files(root, options)
    return [*own, options.table(root), *(root / name for case in cases for name in (case.image, *case.masks))]
