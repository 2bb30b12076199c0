"""The two layouts of a dataset folder -> the files of each image; no image is opened.

- BUSI's (Al-Dhabyani et al., Data in Brief 28:104863, 2020): ``CLASS/CLASS (N).png`` with the mask
  ``CLASS (N)_mask.png`` and, for an image with several lesions, ``_mask_1.png``, ``_mask_2.png``. Any image format, and
  names in capitals of any kind (:mod:`busi_lab.data.names`). Scans without a lesion need no masks, and a dataset may
  have none at all.
- A folder with a table ``labels.csv`` (:mod:`busi_lab.data.labels`).

A folder that holds ``labels.csv`` has the second layout. Classes are BUSI's, or those that ``dataset.json`` names
(:mod:`busi_lab.data.dataset`). The lesion mask of an image is the union of its files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from busi_lab.classes import BUSI
from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.dataset import DATASET, read_classes
from busi_lab.data.labels import read_labels, similar_tables
from busi_lab.data.names import class_folders, folded, is_image_name, is_system_file, parse_image_name
from busi_lab.data.options import AS_FOUND, LABELS, DatasetOptions
from busi_lab.errors import UserError

_DEEPEST = 3  # folders below the one that is named
_MOST_FOLDERS = 500  # that are looked into for a dataset


def resolve_root(root: str | Path | None, options: DatasetOptions = AS_FOUND) -> Path:
    """The folder of a dataset in either layout: ``root`` itself, or the only such folder nearest below it.

    With a table from elsewhere it is ``root``, whatever it holds.

    Raises:
        UserError: no such folder, or neither the class folders nor ``labels.csv`` in it.
    """
    if not root:
        raise UserError(
            "data.root is not set: set it, or the environment variable BUSI_ROOT, to the folder that holds "
            f"{', '.join(BUSI.names)} (or try data=phantom)"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(f"data.root={folder}: expected a dataset folder, found {found}; check the path")
    if options.labels is not None or options.has_table(folder) or _classes_in(folder):
        return folder
    matches = _nearest_datasets(folder)
    if len(matches) != 1:
        found = ", ".join(path.relative_to(folder).as_posix() for path in matches[:9]) or "none"
        advice = similar_tables(folder) or f"point data.root at the dataset, and name other classes in {DATASET}"
        raise UserError(
            f"data.root={folder}: expected the folders {', '.join(read_classes(folder).names)} or {LABELS} in it or in "
            f"one folder below it, found {found}; {advice}"
        )
    return matches[0]


def _nearest_datasets(folder: Path) -> list[Path]:
    """The dataset folders below one that is none, all at the least depth at which there are any.

    Archives nest, as ``BUSI/Dataset_BUSI_with_GT/benign``. Deeper than directly in ``folder``, one class folder alone
    makes no dataset, because any other folder may be called ``normal``.
    """
    level = [folder]
    for depth in range(1, _DEEPEST + 1):
        below: list[Path] = []
        for parent in level:
            try:
                below += sorted(path for path in parent.iterdir() if path.is_dir() and not is_system_file(path))
            except OSError:  # closed to this user
                continue
            if len(below) > _MOST_FOLDERS:
                return []
        if matches := [path for path in below if _is_dataset(path, 1 if depth == 1 else 2)]:
            return matches
        level = below
    return []


def _is_dataset(folder: Path, classes: int) -> bool:
    try:
        return AS_FOUND.has_table(folder) or _classes_in(folder) >= classes
    except OSError:
        return False


def _classes_in(folder: Path) -> int:
    """How many classes have a folder here."""
    return len(class_folders(folder, read_classes(folder).names))


def require_layout(root: str | Path | None, name: str, options: DatasetOptions = AS_FOUND) -> None:
    """Check that a dataset folder has the layout that ``busi`` or ``labels`` means; any other name takes either.

    Raises:
        UserError: no dataset folder, or one of the other layout.
    """
    if name == "labels" and not root:
        raise UserError(f"data.root is not set: data=labels needs data.root=DIR, the folder that holds {LABELS}")
    if options.labels is not None and name == "busi":
        raise UserError(f"data.labels={options.labels}: names a table, and data=busi reads folders; use data=labels")
    folder = resolve_root(root, options)
    names = ", ".join(read_classes(folder).names)
    if options.label_map and not options.has_table(folder):
        raise UserError(f"data.label_map: says what labels of a table mean, and {folder} has no {LABELS}; leave it out")
    if options.has_table(folder) and name == "busi":
        raise UserError(
            f"data.root={folder}: expected the folders {names} alone, found {LABELS}; use data=labels, "
            "or move that file away"
        )
    if not options.has_table(folder) and name == "labels":
        raise UserError(f"data.root={folder}: expected {LABELS}, found {names} folders; use data=busi")


def list_files(root: Path, options: DatasetOptions = AS_FOUND) -> tuple[list[CaseFiles], list[Defect]]:
    """Find the images and masks of a dataset; no image is opened.

    Returns:
        The cases in lexicographic order of class and file name, of a folder with ``labels.csv`` in that of the files'
        paths, and everything that does not fit the layout.

    Raises:
        UserError: ``options`` name no file or no class.
    """
    if options.has_table(root):
        listing = read_labels(root, options)
        cases, defects = listing.cases, listing.defects
    else:
        cases, defects = _pair_by_name(root)
    values = options.lesion_values
    return [replace(case, lesion_values=values) for case in cases] if values else cases, defects


def absent_classes(root: Path, options: DatasetOptions = AS_FOUND) -> tuple[str, ...]:
    """The classes without a folder, of a dataset in BUSI's layout; none for a folder with ``labels.csv``."""
    names = read_classes(root).names
    if options.has_table(root):
        return ()
    present = class_folders(root, names)
    return tuple(name for name in names if name not in present)


def list_notes(root: Path, cases: Sequence[CaseFiles], options: DatasetOptions = AS_FOUND) -> list[Defect]:
    """What is no defect, but should be known of how a dataset was understood.

    Raises:
        UserError: as :func:`list_files`.
    """
    if options.has_table(root):
        return [Defect(*note.split(": ", 1)) for note in read_labels(root, options).notes]
    classes = read_classes(root)
    absent = absent_classes(root)
    rest = ",".join(name for name in classes.names if name not in absent)
    advice = f"data.classes=[{rest}] trains without it; else add it, or name the classes in {DATASET}"
    notes = [Defect(name, f"no folder of this class; {advice}") for name in absent]
    lesions = [case for case in cases if case.label in classes.lesions]
    if lesions and not any(case.mask_known for case in lesions):
        expected = f"segmentation needs {PurePosixPath(lesions[0].image).with_suffix('')}_mask.png and so on"
        notes.append(Defect(root.name, f"no image has a mask: classification can be trained; {expected}"))
    return notes


@dataclass
class _ClassFolder:
    """What lies in the folders of one class: names without ending -> files."""

    images: dict[str, str] = field(default_factory=dict)
    masks: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)


def _pair_by_name(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """The images and masks in BUSI's layout."""
    classes = read_classes(root)
    names = classes.names
    folders = class_folders(root, names)
    known = {DATASET, *(folder.name for several in folders.values() for folder in several)}
    defects = [
        Defect(entry.name, f"foreign entry: expected only {', '.join(names)}; move it away")
        for entry in sorted(root.iterdir())
        if not is_system_file(entry) and entry.name not in known
    ]
    for label, several in folders.items():
        if len(several) > 1:
            places = " and ".join(folder.name for folder in several)
            defects.append(Defect(label, f"{places} are both folders of this class; put their files into one"))
    found = {label: _look_into(several[-1]) for label, several in folders.items()}
    masked = {label for label, content in found.items() if content.masks}
    cases: list[CaseFiles] = []
    for label, content in found.items():
        alike = classes.lesions if label in classes.lesions else (label,)
        needs_mask = bool(masked.intersection(alike))  # else there are none: for classification alone
        defects += content.defects
        if not content.images:
            defects.append(Defect(label, "class folder holds no image"))
        for stem, image in content.images.items():
            files = tuple(name for _, name in sorted(content.masks.pop(stem, [])))
            if not files and needs_mask:
                expected = f"{PurePosixPath(image).parent}/{stem}_mask.png"
                advice = f"add it, or list the images in {LABELS}, where a mask may be unknown"
                defects.append(Defect(image, f"mask is missing: expected {expected}; {advice}"))
            cases.append(
                CaseFiles(stem, label, image, files, mask_known=bool(files) or label == classes.without_lesion)
            )
        for stem, orphans in content.masks.items():
            for _, name in orphans:
                expected = f"{PurePosixPath(name).parent}/{stem}.png"
                defects.append(Defect(name, f"mask without image: expected {expected}"))
    twins = [stem for stem, count in Counter(case.case_id for case in cases).items() if count > 1]
    defects += [Defect(stem, "the name stands in two class folders; names must be unique") for stem in twins]
    return cases, defects


def _look_into(folder: Path) -> _ClassFolder:
    """Sort the files of one class into scans and masks."""
    content = _ClassFolder()
    seen: dict[tuple[str, str], str] = {}  # scan and ending of a mask -> file
    masks: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        name = f"{folder.name}/{path.name}"
        if is_system_file(path):
            continue
        if not path.is_file() or not is_image_name(path):
            content.defects.append(Defect(name, "foreign entry: expected only image files; move it away"))
            continue
        parsed = parse_image_name(path.name)
        key = parsed.image, parsed.mask
        if key in seen:
            kind = "the mask" if parsed.mask else "the image"
            both = f"it and {PurePosixPath(seen[key]).name!a} are both {kind} '{parsed.image}{parsed.mask}'"
            content.defects.append(Defect(name, f"{both}; keep one, or rename one"))
            continue
        seen[key] = name
        if parsed.mask:
            masks.setdefault(parsed.image, []).append((parsed.number, name))
        else:
            content.images[parsed.image] = name
    for stem, files in masks.items():
        alike = [stem] if stem in content.images else [name for name in content.images if folded(name) == folded(stem)]
        content.masks.setdefault(alike[0] if len(alike) == 1 else stem, []).extend(files)
    return content
