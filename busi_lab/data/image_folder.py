"""The third layout of a dataset folder: any images, in one subfolder for each class; no masks, no patients.

It is never guessed: ``data.layout=folder`` asks for it, because a folder of BUSI's layout looks like one whose masks
are scans.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from busi_lab.classes import Classes
from busi_lab.data.case_files import CaseFiles, Defect
from busi_lab.data.dataset import CLASS_NAME
from busi_lab.data.names import is_system_file, parse_image_name
from busi_lab.errors import UserError


def folder_classes(root: Path) -> Classes:
    """The subfolders in alphabetical order, as classes without roles.

    Raises:
        UserError: fewer than two, or a name that cannot be a class's.
    """
    names = [path.name for path in sorted(root.iterdir()) if path.is_dir() and not is_system_file(path)]
    if len(names) < 2:
        found = names[0] if names else "none"
        raise UserError(
            f"data.root={root}: expected a subfolder of images for each class, two at least, found {found}; point "
            "data.root at the folder above the classes"
        )
    lower = Counter(name.lower() for name in names)
    for name in names:
        if not CLASS_NAME.fullmatch(name) or lower[name.lower()] > 1:
            raise UserError(
                f"{root / name}: expected a class of at most 40 letters, digits, dashes and underscores, each once; "
                "rename this folder"
            )
    return Classes(tuple(names))


def list_images(root: Path) -> tuple[list[CaseFiles], list[Defect]]:
    """Find the images of each class, at any depth of its folder; none is opened.

    Returns:
        The cases in the order of class and path, each named by its path without ending, and what does not fit.
    """
    cases: list[CaseFiles] = []
    defects: list[Defect] = []
    for label in folder_classes(root).names:
        paths = list(images_below(root / label))
        if not paths:
            defects.append(Defect(label, "class folder holds no image"))
        for path in paths:
            image = path.relative_to(root)
            if parse_image_name(path.name).mask:
                defects.append(Defect(image.as_posix(), "this looks like a mask; use data=busi, or move it away"))
                continue
            cases.append(CaseFiles(image.with_suffix("").as_posix(), label, image.as_posix(), ()))
    twins = [case_id for case_id, count in Counter(case.case_id for case in cases).items() if count > 1]
    defects += [Defect(case_id, "two images differ in their ending alone; rename one") for case_id in twins]
    return cases, defects


def images_below(folder: Path) -> Iterator[Path]:
    """All files but hidden ones and those of file managers, in the order of their paths."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(is_system_file(Path(part)) for part in path.relative_to(folder).parts):
            yield path
