"""BUS-UCLM: 683 scans of 38 patients, whose masks say the class by their colour.

Vallez et al., BUS-UCLM: Breast ultrasound lesion segmentation dataset, Scientific Data 12:242, 2025; Mendeley Data
10.17632/7fvgj4jsp7. As published with the data::

    INFO.csv               Image;Label;Doppler;Marks;Combined
    images/ALWI_000.png    the letters before _ are the patient
    masks/ALWI_000.png     black: nothing, green: benign, red: malignant

Masks are written as black and white. A scan with both colours, or whose colour contradicts the table, has no label.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from busi_lab.data.importers.item import Item, Made
from busi_lab.data.importers.pairs import pair
from busi_lab.data.importers.source import Source
from busi_lab.data.importers.tables import Row, find_table, has_table, unique
from busi_lab.data.names import folded
from busi_lab.data.reading import read_values
from busi_lab.data.scan import Mask, UnreadableImageError

_TABLE = ("info.csv",)
_COLUMNS = ("image", "label")
_CHANNELS = {"malignant": 0, "benign": 1}
_BRIGHT = 128  # of 255: the least that a colour has in its channel, and less than in each other


def read(source: Source) -> Iterator[Item]:
    """The scans of BUS-UCLM; without ``INFO.csv`` the colours alone say the class.

    Raises:
        UserError: a folder is missing, or the table lacks its columns.
    """
    images, masks = source.images_in({"images"}), source.images_in({"masks"})
    if not images or not masks:
        raise source.refuse("the folders images and masks")
    rows: dict[str, Row] = {}
    if listed := has_table(source, _TABLE):
        table = find_table(source, _COLUMNS, _TABLE)
        rows = {folded(PurePosixPath(row["image"]).stem): row for row in unique(source, table, "image")}
    for image, outlines in pair(source, images, masks):
        stem = PurePosixPath(image).stem
        row = rows.pop(folded(stem), None)
        if listed and row is None:
            source.leave(image, "has no row in INFO.csv: its mask alone says the class")
        said = row.label(source, "label") if row else ""
        made, label = _look(source, image, outlines, said)
        patient = stem.split("_", 1)[0] if "_" in stem else ""
        yield Item(stem, image, made, label, patient, further=row.further(*_COLUMNS) if row else {})
    for row in rows.values():
        source.leave(row.place, f"'{row['image']}' is missing in images")


def _look(source: Source, image: str, outlines: tuple[str, ...], said: str) -> tuple[tuple[Made, ...], str]:
    """The mask of a scan as black and white, and the class that colour and table agree on."""
    if not outlines:
        return (), said
    try:
        colours = _colours(source, outlines[0])
    except UnreadableImageError as error:
        source.leave(outlines[0], f"{error}; {image} has no known mask")
        return (), said
    lesion = np.logical_or.reduce(list(colours.values()))
    found = [label for label, mask in colours.items() if mask.any()] or ["normal"]
    made = (Made(lesion, outlines[0]),)
    if len(found) > 1:
        source.leave(image, f"the mask has the colours of {' and '.join(found)}: the label is left empty")
        return made, ""
    if said and said != found[0]:
        source.leave(image, f"INFO.csv says {said}, the mask {found[0]}: the label is left empty")
        return made, ""
    return made, found[0]


def _colours(source: Source, name: str) -> dict[str, Mask]:
    """Class -> where a mask has its colour.

    Raises:
        UnreadableImageError: it is no picture, or has another colour than black, green and red.
    """
    values = read_values(source.path(name))
    if values.ndim == 2:
        if values.any():
            raise UnreadableImageError("the mask has no colours; expected black, green and red")
        values = np.zeros((*values.shape, 3), np.uint8)
    bright = values >= _BRIGHT
    if (bright.sum(axis=2) > 1).any() or bright[..., 2].any():
        raise UnreadableImageError("the mask has another colour than black, green and red")
    return {label: np.asarray(bright[..., channel]) for label, channel in _CHANNELS.items()}
