"""COCO: one or several JSON files of annotations beside their images.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and cocodataset.org, Data format: ``images`` with
``id``, ``file_name``, ``width`` and ``height``; ``annotations`` with ``image_id``, ``category_id`` and
``segmentation``, which is a list of polygons, or runs of pixels (RLE) as numbers or packed; ``categories`` with ``id``
and ``name``.

The mask of a scan is the union of its outlines, and its label their category. Boxes are no outlines: a scan with an
annotation of a box alone has no known mask. Categories are classes where several are used, or one that is BUSI's.
Images may say ``label``, ``patient`` and ``spacing`` themselves, as those of ``busi-data export coco`` do; such an
image without annotations has an empty mask. Of any other it is not known whether there is nothing, or nobody has
looked.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from busi_lab.data.importers.item import Item, Made
from busi_lab.data.importers.pairs import IMAGES, without_folder
from busi_lab.data.importers.source import Source, busi_label, class_name, shown
from busi_lab.data.outlines import decode_runs, fill_polygons
from busi_lab.data.scan import Mask, UnreadableImageError
from busi_lab.errors import one_line

_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class _File:
    """A file of annotations, its lists checked to be lists of objects."""

    name: str
    images: Sequence[Mapping[str, Any]]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    categories: Mapping[Any, str]


def read(source: Source) -> Iterator[Item]:
    """The scans of COCO's files.

    Raises:
        UserError: there is no such file.
    """
    files = [file for name in source.ending(".json") if (file := _load(source, name))]
    if not files:
        raise source.refuse("a JSON file with images, annotations and categories")
    used = {
        file.categories.get(_key(annotation.get("category_id")), "")
        for file in files
        for annotations in file.annotations.values()
        for annotation in annotations
    } - {""}
    classes = {name: class_name(name) for name in used if len(used) > 1 or busi_label(name)}
    if used and not classes:
        source.leave("categories", f"{', '.join(sorted(map(shown, used)))} alone is no class: labels are left empty")
    taken: set[str] = set()
    for file in files:
        for image in file.images:
            item = _read_image(source, file, image, classes)
            if item and str(item.scan) in taken:
                source.leave(f"{file.name}, {item.scan}", "is listed twice")
            elif item:
                taken.add(str(item.scan))
                yield item


def _load(source: Source, name: str) -> _File | None:
    try:
        content = json.loads(source.path(name).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        source.leave(name, f"cannot be read as JSON ({shown(one_line(error))})")
        return None
    lists: list[Any] = [content.get(key) for key in _LISTS] if isinstance(content, dict) else [None]
    if not all(isinstance(part, list) and all(isinstance(entry, dict) for entry in part) for part in lists):
        source.leave(name, f"has no lists {', '.join(_LISTS)}")
        return None
    images, annotations, categories = lists
    source.use(name, "table")
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        by_image[_key(annotation.get("image_id"))].append(annotation)
    known = {_key(image.get("id")) for image in images}
    if strangers := sum(len(found) for key, found in by_image.items() if key not in known):
        source.leave(f"{name}, annotations", f"{strangers} are of images that are not listed")
    return _File(name, images, by_image, {_key(entry.get("id")): str(entry.get("name", "")) for entry in categories})


def _key(value: Any) -> str:
    """A number of COCO, which some programs write as text."""
    return str(value)


def _read_image(source: Source, file: _File, image: Mapping[str, Any], classes: Mapping[str, str]) -> Item | None:
    cell = str(image.get("file_name", ""))
    name, complaint = source.find(cell, file.name)
    place = f"{file.name}, image {shown(_key(image.get('id')))}"
    if complaint:
        source.leave(place, complaint)
        return None
    annotations = file.annotations.get(_key(image.get("id")), ())
    found = {classes.get(file.categories.get(_key(entry.get("category_id")), ""), "") for entry in annotations} - {""}
    said = class_name(str(image.get("label") or ""))
    found = (found | {said}) - {""}
    if len(found) > 1:
        source.leave(place, f"is {' and '.join(sorted(found))}: the label is left empty")
    label = found.pop() if len(found) == 1 else ""
    masks: tuple[Made, ...] = ()
    try:
        if annotations or "label" in image:
            masks = (Made(_mask(image, annotations), f"{file.name}, {name}"),)
        else:
            source.leave(place, "has no annotation: neither label nor mask is known")
    except (ValueError, TypeError, OverflowError, UnreadableImageError) as error:
        source.leave(place, f"{shown(one_line(error))}: no known mask")
    return Item(
        without_folder(name, IMAGES),
        name,
        masks,
        label,
        str(image.get("patient") or ""),
        str(image.get("spacing") or ""),
    )


def _mask(image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> Mask:
    """The union of all outlines of an image.

    Raises:
        ValueError: an annotation has none, or no sound one, or sizes contradict each other.
        TypeError: what should be numbers are none.
        UnreadableImageError: the picture would be too large.
    """
    size = int(image.get("height", -1)), int(image.get("width", -1))
    union = fill_polygons([], *size)
    for annotation in annotations:
        outline = annotation.get("segmentation")
        if not outline:
            raise ValueError("an annotation is a box without outline")
        if isinstance(outline, dict):
            height, width = (int(number) for number in outline.get("size", (-1, -1)))
            if (height, width) != size:
                raise ValueError(f"runs for {width} x {height}; expected {size[1]} x {size[0]}")
            union |= decode_runs(outline.get("counts", ""), height, width)
        else:
            union |= fill_polygons(outline, *size)
    return np.asarray(union)
