"""COCO (:mod:`busi_lab.data.importers.coco` has the format and its source)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from busi_lab.data.exporters.case import read_cases, write_picture
from busi_lab.data.index import Case, Index
from busi_lab.data.outlines import encode_runs, find_polygons
from busi_lab.data.scan import Mask
from busi_lab.files import write_json


def write(index: Index, cases: Sequence[Case], folder: Path) -> Iterator[tuple[str, str]]:
    """Write ``images`` and ``annotations.json``.

    Each class is a category, and each connected area of a lesion an annotation: a polygon along the edges of its
    pixels, or runs where it has holes. Lesions of scans without a label have the category ``lesion``. Images say label,
    patient and spacing as well, which other programs do not read.

    Yields:
        Case id and name of its file.
    """
    names = list(index.classes.names)
    if any(case.lesion_pixels and not case.label for case in cases) and "lesion" not in names:
        names.append("lesion")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, each in enumerate(read_cases(index, cases), start=1):
        height, width = each.scan.shape
        write_picture(folder / "images" / f"{each.name}.png", each.scan)
        size = {"height": height, "width": width}
        images.append({"id": number, "file_name": f"images/{each.name}.png", **size, **each.said})
        category = 1 + names.index(each.case.label or "lesion") if each.mask.any() else 0
        for area in _areas(each.mask):
            found = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            annotations.append(found | _outline(area))
        yield each.case.case_id, f"{each.name}.png"
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "annotations.json", content)


def _areas(mask: Mask) -> Iterator[Mask]:
    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        yield numbers == number


def _outline(area: Mask) -> dict[str, Any]:
    rows, columns = (np.flatnonzero(area.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1], columns[0], columns[-1]))
    return {
        "segmentation": find_polygons(area) or {"size": list(area.shape), "counts": encode_runs(area)},
        "area": int(area.sum()),
        "bbox": [left, top, right - left + 1, bottom - top + 1],
    }
