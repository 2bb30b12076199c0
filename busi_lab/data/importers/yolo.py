"""YOLO: a text file for each image, a line for each object.

Ultralytics, docs.ultralytics.com/datasets/segment: ``images/a.jpg`` with ``labels/a.txt``, or both in one folder; a
line is ``CLASS x y x y x y ...``, a polygon in shares of width and height, or ``CLASS x y w h``, a box. ``data.yaml``
(``names``) or ``classes.txt`` names the classes.

The mask of a scan is the union of its polygons. Boxes are no outlines: a scan with one has no known mask, only a label.
Classes are labels where several are named, or one that is BUSI's. Of an image without text, or with an empty one, it is
not known whether there is nothing, or nobody has looked.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
import yaml

from busi_lab.data.importers.item import Item, Made
from busi_lab.data.importers.pairs import IMAGES, without_folder
from busi_lab.data.importers.source import Source, busi_label, class_name, shown
from busi_lab.data.names import folded, is_image_name
from busi_lab.data.outlines import fill_polygons
from busi_lab.data.reading import read_image
from busi_lab.data.scan import Mask, UnreadableImageError
from busi_lab.errors import one_line

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt")
_LABELS = {"labels", "label"}


def read(source: Source) -> Iterator[Item]:
    """The images of YOLO's folders.

    Raises:
        UserError: no text file belongs to an image.
    """
    words = _class_names(source)
    texts: dict[str, list[str]] = defaultdict(list)
    for name in source.ending(".txt"):
        if not source.is_accounted(name):
            texts[folded(without_folder(name, _LABELS))].append(name)
    images = [name for name in source.files if is_image_name(PurePosixPath(name))]
    stems = {folded(without_folder(name, IMAGES)) for name in images}
    if not stems & texts.keys():
        raise source.refuse("images with a text file each, as images/a.jpg and labels/a.txt")
    several = len(set(words.values())) > 1
    classes = {number: class_name(word) for number, word in words.items() if several or busi_label(word)}
    if not classes:
        source.leave("classes", "fewer than two are named in data.yaml or classes.txt: labels are left empty")
    for image in images:
        found = texts.get(folded(without_folder(image, IMAGES)), [])
        if len(found) != 1:
            source.leave(image, f"has {len(found) or 'no'} text files: neither label nor mask is known")
            yield Item(without_folder(image, IMAGES), image)
        else:
            yield _read_image(source, image, found[0], classes)
    for stem in texts.keys() - stems:
        for name in texts[stem]:
            source.leave(name, "has no image of its name")


def _class_names(source: Source) -> dict[str, str]:
    """Number of a class -> its name."""
    for name in source.ending(*_NAMES):
        if name.rsplit("/", 1)[-1].lower() not in _NAMES:
            continue
        try:
            text = source.path(name).read_text(encoding="utf-8-sig")
            content = yaml.safe_load(text) if name.lower().endswith("ml") else {"names": text.split("\n")}
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            source.leave(name, f"cannot be read ({shown(one_line(error))})")
            continue
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, dict) and names:
            source.use(name, "table")
            return {str(number): str(word).strip() for number, word in names.items() if str(word).strip()}
        source.leave(name, "has no names of classes")
    return {}


def _read_image(source: Source, image: str, text: str, classes: Mapping[str, str]) -> Item:
    name = without_folder(image, IMAGES)
    try:
        lines = [line.split() for line in source.path(text).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        source.leave(text, f"is no text in UTF-8; {image} has neither label nor mask")
        return Item(name, image)
    lines = [line for line in lines if line]
    source.use(text, "table")
    if not lines:
        source.leave(image, f"{text} is empty: neither label nor mask is known")
        return Item(name, image)
    found = {classes.get(line[0], "") for line in lines} - {""}
    label = next(iter(found)) if len(found) == 1 else ""
    if len(found) > 1:
        source.leave(image, f"is {' and '.join(sorted(found))}: the label is left empty")
    elif classes and not all(line[0] in classes for line in lines):
        source.leave(image, f"{text} has a class that is not named")
    try:
        return Item(name, image, (Made(_mask(source, image, lines), text),), label)
    except (ValueError, UnreadableImageError) as error:
        source.leave(text, f"{shown(one_line(error))}: {image} has no known mask")
        return Item(name, image, label=label)


def _mask(source: Source, image: str, lines: list[list[str]]) -> Mask:
    """The union of the polygons of some lines.

    Raises:
        ValueError: a line is a box, or no polygon.
        UnreadableImageError: the image, whose size is needed, cannot be read.
    """
    height, width = read_image(source.path(image)).shape
    polygons = []
    for line in lines:
        if len(line) in (5, 6):
            raise ValueError("boxes are no outlines and are not taken")
        shares = np.array([float(number) for number in line[1:]])
        if len(shares) % 2 or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError("a line is no polygon; expected CLASS x y x y x y ... from 0 to 1")
        polygons.append(list((shares.reshape(-1, 2) * (width, height)).ravel()))
    return fill_polygons(polygons, height, width)
