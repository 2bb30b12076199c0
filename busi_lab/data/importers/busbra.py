"""BUS-BRA: 1,875 scans of 1,064 women, four machines, with pathology and BI-RADS.

Gómez-Flores et al., BUS-BRA: A breast ultrasound dataset for assessing computer-aided diagnosis systems, Medical
Physics 51:3110, 2024; Zenodo 8231412. As published with the data::

    bus_data.csv              ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX
    Images/bus_0001-l.png     ID and .png
    Masks/mask_0001-l.png     bus_ becomes mask_
    5-fold-cv.csv             not taken: splits are drawn here, with the same patients together

``Case`` is the patient.
"""

from collections.abc import Iterator

from busi_lab.data.importers.item import Item
from busi_lab.data.importers.source import Source
from busi_lab.data.importers.tables import find_table, unique
from busi_lab.data.names import folded

_COLUMNS = ("id", "case", "pathology")


def read(source: Source) -> Iterator[Item]:
    """The scans of BUS-BRA.

    Raises:
        UserError: there is no ``bus_data.csv`` with its columns.
    """
    table = find_table(source, _COLUMNS, ("bus_data.csv",))
    images, masks = source.images_in({"images"}), source.images_in({"masks"})
    for name in source.ending("-fold-cv.csv"):
        source.leave(name, "folds are not taken: split=grouped_kfold draws its own, with the same patients together")
    listed = {folded(row["id"]) for row in table.rows}
    for row in unique(source, table, "id"):
        stem = folded(row["id"])
        found, outlines = images.get(stem, []), masks.get(stem.replace("bus_", "mask_", 1), [])
        if len(found) != 1:
            source.leave(row.place, f"'{row['id']}' has {len(found) or 'no'} image files in Images")
            continue
        if len(outlines) != 1:
            source.leave(row.place, f"'{row['id']}' has {len(outlines) or 'no'} mask files in Masks: no known mask")
        yield Item(
            row["id"],
            found[0],
            tuple(outlines) if len(outlines) == 1 else (),
            row.label(source, "pathology"),
            row["case"],
            further=row.further(*_COLUMNS, "width", "height"),
        )
    for stem, names in images.items():
        for name in names if stem not in listed else ():
            source.leave(name, f"has no row in {table.name}, so its patient is not known")
