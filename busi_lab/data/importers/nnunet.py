"""nnU-Net raw: ``dataset.json``, ``imagesTr/CASE_0000.png``, ``labelsTr/CASE.png``, perhaps ``imagesTs``.

Isensee et al., nnU-Net, Nature Methods 18:203, 2021; documentation/dataset_format.md of MIC-DKFZ/nnUNet. ``labels``
maps names to values of the masks (in version 1 values to names); 0 is the background.

Where several labels are named, or one that is BUSI's, they are classes: the label of a scan is that of the values in
its mask, empty where there are two, or none. Of several channels the first is taken. ``cases``, which ``busi-data
export nnunet`` writes and nnU-Net does not read, says label, patient and spacing of each case.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from busi_lab.data.importers.item import Item, Made
from busi_lab.data.importers.source import Source, busi_label, class_name, shown
from busi_lab.data.names import folded
from busi_lab.data.reading import read_values
from busi_lab.data.scan import UnreadableImageError

_TABLE = "dataset.json"
_PARTS = {"imagestr": "labelstr", "imagests": "labelsts"}


def read(source: Source) -> Iterator[Item]:
    """The cases of a raw dataset of nnU-Net.

    Raises:
        UserError: there is no ``dataset.json`` with labels.
    """
    table = next((name for name in source.ending(_TABLE) if name.rsplit("/", 1)[-1].lower() == _TABLE), None)
    if table is None:
        raise source.refuse(_TABLE)
    content = _load(source, table)
    values = _values(source, content)
    source.use(table, "table")
    cases = content.get("cases")
    by_place = {folded(name): name for name in source.files}
    for name in source.files:
        path = PurePosixPath(name)
        part = path.parent.name.lower()
        if part not in _PARTS:
            continue
        stem, _, channel = path.stem.removesuffix(".nii").rpartition("_")
        if channel != "0000":
            why = "is another channel; the first, _0000, is taken" if channel.isdigit() else "does not end with _0000"
            source.leave(name, why)
            continue
        said = cases.get(stem) if isinstance(cases, dict) else None
        told = said if isinstance(said, dict) else {}
        patient, spacing = (str(told.get(key) or "") for key in ("patient", "spacing"))
        item = Item(stem, name, label=class_name(str(told.get("label") or "")), patient=patient, spacing=spacing)
        yield _with_mask(source, item, by_place.get(_mask_place(path, stem), ""), values, bool(told))


def _mask_place(image: PurePosixPath, stem: str) -> str:
    folder = image.parent.parent / _PARTS[image.parent.name.lower()]
    return folded(str(folder / f"{stem}{image.suffix}"))


def _load(source: Source, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads(source.path(name).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        raise source.refuse(f"{name} as JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise source.refuse(f"labels in {name}")
    return content


def _values(source: Source, content: Mapping[str, Any]) -> dict[int, str]:
    """Value -> name of a label, without the background.

    Raises:
        UserError: a value is no number, as those of regions.
    """
    found = {}
    for first, second in content["labels"].items():
        name, value = (second, first) if str(first).isdigit() else (first, second)
        if isinstance(value, bool) or not str(value).isdigit():
            raise source.refuse(f"a whole number for the label {shown(str(name))}")
        if int(value):
            found[int(value)] = str(name)
    return found


def _with_mask(source: Source, item: Item, mask: str, values: Mapping[int, str], told: bool) -> Item:
    """A case with its mask, and with the label of the values in it unless ``cases`` has told that."""
    if not mask:
        source.leave(str(item.scan), "has no mask file: no known mask")
        return item
    try:
        content = read_values(source.path(mask))
    except UnreadableImageError as error:
        source.leave(mask, f"{error}; {item.scan} has no known mask")
        return item
    content = content if content.ndim == 2 else content.max(axis=2)
    present = set(np.unique(content).tolist()) - {0}
    if len(values) == 1 and present == {255}:  # a mask of 1 bit
        present = set(values)
    names = {values.get(value, "") for value in present}
    if names & {"", "ignore"}:
        source.leave(mask, f"has values that are no label, or ignored; {item.scan} has no known mask")
        return item
    item = replace(item, masks=(Made(np.asarray(content > 0), mask),))
    classes = {class_name(name) for name in names if len(values) > 1 or busi_label(name)}
    if told or len(classes) == 1:
        return item if told else replace(item, label=classes.pop())
    source.leave(
        str(item.scan), f"its mask says {' and '.join(sorted(classes)) or 'no class'}: the label is left empty"
    )
    return item
