"""nnU-Net raw (:mod:`busi_lab.data.importers.nnunet` has the format and its source)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from busi_lab.data.exporters.case import read_cases, write_picture
from busi_lab.data.index import Case, Index
from busi_lab.files import write_json


def write(index: Index, cases: Sequence[Case], folder: Path) -> Iterator[tuple[str, str]]:
    """Write ``imagesTr``, ``labelsTr`` and ``dataset.json``.

    A mask holds 0, and where there is lesion the number of the class. Where the class of a scan with a lesion is not
    known, there is one label ``lesion`` for all. ``cases`` in ``dataset.json`` has label, patient and spacing, which
    nnU-Net does not read.

    Yields:
        Case id and name of its files.
    """
    known = all(case.label in index.classes.lesions for case in cases if case.lesion_pixels)
    names = index.classes.lesions if known else ("lesion",)
    said = {}
    for each in read_cases(index, cases):
        value = 1 + (names.index(each.case.label) if known and each.mask.any() else 0)
        write_picture(folder / "imagesTr" / f"{each.name}_0000.png", each.scan)
        write_picture(folder / "labelsTr" / f"{each.name}.png", each.mask * np.uint8(value))
        said[each.name] = {"case_id": each.case.case_id, **each.said}
        yield each.case.case_id, each.name
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "US"},
            "labels": {"background": 0, **{name: number for number, name in enumerate(names, start=1)}},
            "numTraining": len(said),
            "file_ending": ".png",
            "cases": said,
        },
    )
