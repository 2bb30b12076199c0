"""BrEaST: 256 scans of 256 patients with the BI-RADS lexicon, benign, malignant and normal.

Pawłowska et al., Curated benchmark dataset for ultrasound based breast lesion analysis, Scientific Data 11:148, 2024;
TCIA Breast-Lesions-USG, 10.7937/9WKK-Q141. As published with the data, one folder of pictures and a table, ``.xlsx``::

    CaseID, Image_filename, Mask_tumor_filename, Mask_other_filename, Pixel_size, Age, Tissue_composition, Signs,
    Symptoms, Shape, Margin, Echogenicity, Posterior_features, Halo, Calcifications, Skin_thickening, Interpretation,
    BIRADS, Verification, Diagnosis, Classification
    case001.png, case001_tumor.png, case001_other1.png

``&`` separates several values of a cell. ``Pixel_size`` is taken for centimetres; a scan whose pixels would then be
smaller or larger than those of breast ultrasound, :data:`PLAUSIBLE_MM`, gets no spacing. Masks of other findings, such
as lymph nodes, are no lesions and are left out. A case is a patient.
"""

from collections.abc import Iterator

from busi_lab.data.importers.item import Item
from busi_lab.data.importers.source import Source, shown
from busi_lab.data.importers.tables import Row, find_table, unique

_COLUMNS = ("caseid", "image_filename", "mask_tumor_filename", "classification")
_MM_PER_CM = 10
PLAUSIBLE_MM = 0.02, 0.4
"""Millimetres per pixel: a scan of 400 to 1,500 rows shows 2 to 10 cm, with a margin."""


def read(source: Source) -> Iterator[Item]:
    """The scans of BrEaST.

    Raises:
        UserError: there is no table with its columns.
    """
    table = find_table(source, _COLUMNS)
    for row in unique(source, table, "image_filename"):
        image, complaint = source.find(row["image_filename"])
        if complaint:
            source.leave(row.place, complaint)
            continue
        yield Item(
            image.rsplit("/", 1)[-1].rsplit(".", 1)[0],
            image,
            _masks(source, row),
            row.label(source, "classification"),
            row["caseid"],
            _spacing(source, row),
            row.further(*_COLUMNS, "mask_other_filename", "pixel_size"),
        )
        for other in _names(row["mask_other_filename"]):
            name, missing = source.find(other)
            source.leave(name or row.place, missing or "outlines another finding than the tumour")


def _names(cell: str) -> list[str]:
    return [name.strip() for name in cell.split("&") if name.strip()]


def _masks(source: Source, row: Row) -> tuple[str, ...]:
    found = [source.find(name) for name in _names(row["mask_tumor_filename"])]
    for _, complaint in found:
        if complaint:
            source.leave(row.place, f"mask {complaint}: no known mask")
            return ()
    return tuple(name for name, _ in found)


def _spacing(source: Source, row: Row) -> str:
    """Millimetres per pixel."""
    cell = row["pixel_size"]
    if not cell:
        return ""
    try:
        spacing = float(cell.replace(",", ".")) * _MM_PER_CM
    except ValueError:
        spacing = -1.0
    if PLAUSIBLE_MM[0] <= spacing <= PLAUSIBLE_MM[1]:
        return f"{spacing:.6g}"
    source.leave(row.place, f"Pixel_size '{shown(cell)}' is no size in centimetres: spacing is left empty")
    return ""
