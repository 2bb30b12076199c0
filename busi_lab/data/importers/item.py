"""One scan of a foreign dataset, as an importer hands it to the writer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Made:
    """A picture that is no file of the source, but made from one.

    Attributes:
        pixels: a scan uint8 ``[H, W]``, or a mask bool ``[H, W]``.
        origin: the file.
    """

    pixels: NDArray[Any]
    origin: str


Picture = str | Made
"""The name of a file of the source, or what was made from one."""


@dataclass(frozen=True, eq=False)
class Item:
    """A scan with all that its dataset says of it.

    Attributes:
        name: path without ending that it gets; the case id is ``images/NAME``.
        scan: its picture.
        masks: whose union is the lesion; none where it is not known.
        label: a class, or empty.
        patient: whose value keeps scans together, or empty.
        spacing: as :func:`busi_lab.data.spacing.parse_spacing` reads it, or empty.
        further: name -> value of further columns.
    """

    name: str
    scan: Picture
    masks: tuple[Picture, ...] = ()
    label: str = ""
    patient: str = ""
    spacing: str = ""
    further: Mapping[str, str] = field(default_factory=dict)
