"""Values stored in DICOM -> gray levels.

Modality transform, then the first VOI table or window (PS3.3, C.11.1 and C.11.2), as on the scanner's screen. Deep
files without one: the smallest of 8, 10, 12, 14 and 16 bits that holds all values of the file is taken as the range
from black to white, as for TIFF. Tables of single frames in functional groups are not read.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from busi_lab.data.scan import Gray, UnreadableImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # all decoded to RGB
PALETTE = "PALETTE COLOR"

_DEPTHS = (8, 10, 12, 14, 16)  # bits


class Levels:
    """Turns the stored values of one file into gray levels.

    Args:
        dataset: its header.

    Raises:
        UnreadableImageError: a transform gives values that are not finite.
    """

    def __init__(self, dataset: "Dataset") -> None:
        self._dataset = dataset
        self._interpretation = str(dataset.PhotometricInterpretation)
        self._count = 1 << int(dataset.BitsStored)
        self._values = np.arange(self._count)
        if dataset.get("PixelRepresentation") == 1:
            self._values[self._count // 2 :] -= self._count
        self._table: Gray | None = None
        if self._interpretation in COLOUR:
            self._table = _to_bytes(self._values / (self._count - 1))
        elif self._interpretation == PALETTE:
            self._table = self._palette()
        else:
            from pydicom.pixels.processing import apply_modality_lut

            self._levels = np.asarray(apply_modality_lut(self._values, dataset), dtype=np.float64)
            if not np.isfinite(self._levels).all():
                raise UnreadableImageError("the DICOM file's rescale slope or intercept is not finite")
            shown = _apply_voi(self._levels, dataset)
            if shown is not None:
                self._table = self._gray(shown)
            elif self._count <= 256:
                self._table = self._stretch(0, self._count - 1)

    @property
    def need_range(self) -> bool:
        """Whether :meth:`set_range` must see all values of the file first."""
        return self._table is None

    def set_range(self, frames: Iterable[NDArray[Any]]) -> None:
        """Look for the smallest range that holds the stored values of all frames."""
        lowest, largest = 0, 0
        for frame in frames:
            found = self._values[self._positions(frame)]
            lowest, largest = min(lowest, int(found.min())), max(largest, int(found.max()))
        signed = lowest < 0
        depth = next(bits for bits in _DEPTHS if max(largest, -lowest - 1) < 1 << (bits - signed))
        low, high = (-(1 << (depth - 1)), (1 << (depth - 1)) - 1) if signed else (0, (1 << depth) - 1)
        self._table = self._stretch(low, high)

    def to_gray(self, frame: NDArray[Any]) -> Gray:
        """Gray levels uint8 ``[H, W]`` of stored values ``[H, W]``, or the luminance of RGB values ``[H, W, 3]``."""
        assert self._table is not None
        looked_up = np.asarray(self._table[self._positions(frame)])
        return np.asarray(Image.fromarray(looked_up).convert("L")) if looked_up.ndim == 3 else looked_up

    def _positions(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Where the table has stored values; bits above BitsStored are not theirs."""
        unsigned = frame.view(frame.dtype.str.replace("i", "u"))  # in the byte order of the file
        positions: NDArray[Any] = unsigned & (self._count - 1)
        return positions

    def _stretch(self, low: int, high: int) -> Gray:
        """The table that runs from black to white over the levels of some stored values."""
        used = self._levels[(self._values >= low) & (self._values <= high)]
        black, white = used.min(), used.max()
        return self._gray((self._levels - black) / max(white - black, 1e-9))

    def _gray(self, shown: NDArray[np.float64]) -> Gray:
        return _to_bytes(1 - shown if self._interpretation == "MONOCHROME1" else shown)

    def _palette(self) -> Gray:
        from pydicom.pixels.processing import apply_color_lut

        entries, first, _ = (int(number) for number in self._dataset.RedPaletteColorLookupTableDescriptor)
        last = first + (entries or 1 << 16) - 1  # pydicom lets what is above run over
        colours = apply_color_lut(self._values[None, :].clip(max=last), self._dataset)[..., :3]
        shift = 8 * colours.dtype.itemsize - 8
        return np.asarray(Image.fromarray((colours >> shift).astype(np.uint8)).convert("L")).ravel()


def _to_bytes(shares: NDArray[np.float64]) -> Gray:
    return np.asarray(np.rint(shares.clip(0, 1) * 255), dtype=np.uint8)


def _apply_voi(levels: NDArray[np.float64], dataset: "Dataset") -> NDArray[np.float64] | None:
    """Levels as a share of white, by the first table or window of the file (PS3.3, C.11.2.1); None without one."""
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    if dataset.get("VOILUTSequence"):  # not by pydicom 3.0: a table of 8 bits runs over there behind 256 entries
        item = dataset.VOILUTSequence[0]
        entries, first, bits = (int(number) for number in item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, bytes):  # words, or bytes where there is room for no more
            order = "<" if dataset.original_encoding[1] else ">"
            data = np.frombuffer(data, dtype=f"{order}u{2 if len(data) >= 2 * (entries or 1 << 16) else 1}")
        output = np.asarray(data, dtype=np.float64)
        position = np.rint(levels - first).clip(0, len(output) - 1).astype(np.intp)
        return np.asarray(output[position] / ((1 << bits) - 1))
    centre, width = first_number(dataset, "WindowCenter"), first_number(dataset, "WindowWidth")
    function = dataset.get("VOILUTFunction")
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    if centre is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return None
    window = Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre, width, function
    window.PhotometricInterpretation, window.PixelRepresentation = "MONOCHROME2", 0
    window.BitsStored = 1  # so that it answers from 0 to 1
    with np.errstate(over="ignore"):  # far below a sigmoid's centre
        return np.asarray(apply_windowing(levels, window))


def first_number(dataset: "Dataset", name: str) -> float | None:
    """The first value of an element that may have several; None where there is none or it is not finite."""
    value = dataset.get(name)
    if value is not None and not isinstance(value, (int, float, str)):
        value = value[0] if len(value) else None
    number = math.nan if value is None or value == "" else float(value)
    return number if math.isfinite(number) else None
