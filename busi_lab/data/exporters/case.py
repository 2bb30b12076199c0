"""One case of a dataset, as the writers of other formats need it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from busi_lab.data.index import Case, Index, read_case
from busi_lab.data.names import folded
from busi_lab.data.scan import Gray, Mask


@dataclass(frozen=True, eq=False)
class ExportedCase:
    """A case with its name and its pixels.

    Attributes:
        name: of its files: letters, digits, dashes and underscores, once in a dataset in any capitals.
        case: what the index says.
        scan: uint8 ``[H, W]``.
        mask: bool ``[H, W]``.
    """

    name: str
    case: Case
    scan: Gray
    mask: Mask

    @property
    def said(self) -> dict[str, str]:
        """Label, patient and spacing, as our importers read them back."""
        spacing = "x".join(f"{part:.9g}" for part in self.case.spacing) if self.case.spacing else ""
        return {"label": self.case.label, "patient": self.case.patient, "spacing": spacing}


def read_cases(index: Index, cases: Sequence[Case]) -> Iterator[ExportedCase]:
    """Decode one case after the other."""
    taken: set[str] = set()
    for case in cases:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", case.case_id).strip("_") or "case"
        name, number = plain, 1
        while folded(name) in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(folded(name))
        yield ExportedCase(name, case, *read_case(index.root, case))


def write_picture(path: Path, pixels: Gray) -> None:
    """Write uint8 ``[H, W]`` as gray PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
