"""A DICOM file -> scans; needs pydicom, which is imported when the first such file is read.

Gray levels: modality transform, then the first VOI table or window (PS3.3, C.11.1 and C.11.2), as on the scanner's
screen; without one, all that BitsStored can hold. Tables of single frames in functional groups are not read.
"""

import itertools
import math
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from busi_lab.data.scan import EXPECTED, Gray, Scan, UnreadableImageError, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CENTIMETRES, _PLANE = 3, 1  # PhysicalUnitsXDirection and RegionSpatialFormat, PS3.3 C.8.5.5
_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_GRAY_INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2")
_COLOUR_INTERPRETATIONS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # all decoded to RGB


def decode_dicom(path: Path, marked: bool) -> Generator[Scan, None, None]:
    """Frames of a DICOM file; one without its marker is read only as what the standard makes the default."""
    try:
        from pydicom.pixels.utils import iter_pixels
    except ImportError:
        raise UnreadableImageError("reading DICOM needs pydicom: pip install 'busi-lab[dicom]'") from None
    dataset, syntax = _read_header(path) if marked else _read_bare_header(path)
    frames = _check_header(dataset)
    _check_decoder(syntax)
    to_gray = _colour_to_gray if dataset.PhotometricInterpretation in _COLOUR_INTERPRETATIONS else _levels_to_gray
    table = _gray_table(dataset)
    spacing = _spacing(dataset)
    found = 0
    try:
        for values in itertools.islice(iter_pixels(path, transfer_syntax_uid=syntax), frames):
            yield Scan(to_gray(values, table), spacing, found if frames > 1 else None)
            found += 1
    except RuntimeError as error:  # each decoder that knows the syntax gave up, as Pillow does on JPEG of 12 bits
        raise UnreadableImageError(
            f"the pixels are corrupt or need another decoder, pip install 'pylibjpeg[all]' or python-gdcm ({error})"
        ) from error
    if found < frames:
        raise UnreadableImageError(f"the file is cut: expected {frames} frames, found {found}")


def _read_header(path: Path) -> "tuple[Dataset, str]":
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import UID

    syntax = UID(str(read_file_meta_info(path).get("TransferSyntaxUID", "")))
    if not syntax:
        raise UnreadableImageError("the DICOM file does not name its transfer syntax; export it again")
    if syntax.is_transfer_syntax and syntax.is_deflated:  # inflating it whole could fill the memory
        raise UnreadableImageError(f"the DICOM file is stored as {syntax.name}; store it uncompressed")
    return dcmread(path, stop_before_pixels=True), str(syntax)


def _read_bare_header(path: Path) -> "tuple[Dataset, str]":
    """The header of a file without marker: sound if it is Implicit VR Little Endian, which is never compressed."""
    from pydicom.filereader import read_dataset

    with path.open("rb") as file:
        try:
            dataset = read_dataset(file, True, True, stop_when=lambda tag, *_: tag >= 0x7FE00008)
            sound = getattr(dataset.get_item("Rows"), "is_implicit_VR", False)
        except Exception:  # the file may be anything
            sound = False
    if not sound:
        raise UnreadableImageError(f"the content is not an image; {EXPECTED}")
    dataset.set_original_encoding(True, True)
    return dataset, _IMPLICIT_LITTLE_ENDIAN


def _check_header(dataset: "Dataset") -> int:
    """Refuse what is no picture or too large before anything is decoded; the number of frames."""
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation")
    if any(dataset.get(name) is None for name in needed):
        kind = getattr(dataset.get("SOPClassUID"), "name", "")
        raise UnreadableImageError(f"the DICOM file holds no pixels{kind and f' ({kind})'}; expected an image")
    samples, interpretation = int(dataset.SamplesPerPixel), str(dataset.PhotometricInterpretation)
    check_size(int(dataset.Columns), int(dataset.Rows), samples)
    expected = dict.fromkeys(_COLOUR_INTERPRETATIONS, 3) | dict.fromkeys((*_GRAY_INTERPRETATIONS, "PALETTE COLOR"), 1)
    if expected.get(interpretation) != samples:
        raise UnreadableImageError(
            f"the DICOM file has the photometric interpretation {interpretation} with {samples} samples; expected "
            f"{', '.join(expected)}"
        )
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (1, 8, 16) or not 1 <= stored <= allocated:
        raise UnreadableImageError(f"the DICOM file has {stored} of {allocated} bits per value; expected at most 16")
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _check_decoder(syntax: str) -> None:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    name = UID(syntax).name
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImageError(
            f"the pixels are stored as {name}, which is not read; store them uncompressed"
        ) from None
    if not decoder.is_available:
        raise UnreadableImageError(
            f"the pixels are stored as {name}, which no installed decoder reads: pip install 'pylibjpeg[all]' or "
            "python-gdcm, or store them uncompressed"
        )


def _colour_to_gray(values: NDArray[Any], table: Gray) -> Gray:
    """Luminance of RGB values ``[H, W, 3]``."""
    return np.asarray(Image.fromarray(_levels_to_gray(values, table)).convert("L"))


def _levels_to_gray(values: NDArray[Any], table: Gray) -> Gray:
    """Look stored values up; bits above BitsStored are not theirs."""
    unsigned = values.view(values.dtype.str.replace("i", "u"))  # in the byte order of the file
    return np.asarray(table[unsigned & (len(table) - 1)])


def _gray_table(dataset: "Dataset") -> Gray:
    """The gray level of every value that can be stored, uint8 ``[2 ** BitsStored]``, in the order of their bits."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    count = 1 << int(dataset.BitsStored)
    values = np.arange(count)
    if dataset.get("PixelRepresentation") == 1:
        values[count // 2 :] -= count
    interpretation = dataset.PhotometricInterpretation
    if interpretation in _COLOUR_INTERPRETATIONS:
        return _to_bytes(values / (count - 1))
    if interpretation == "PALETTE COLOR":
        entries, first, _ = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
        last = first + (entries or 1 << 16) - 1  # pydicom lets what is above run over
        colours = apply_color_lut(values[None, :].clip(max=last), dataset)[..., :3]
        shift = 8 * colours.dtype.itemsize - 8
        return np.asarray(Image.fromarray((colours >> shift).astype(np.uint8)).convert("L")).ravel()
    levels = np.asarray(apply_modality_lut(values, dataset), dtype=np.float64)
    if not np.isfinite(levels).all():
        raise UnreadableImageError("the DICOM file's rescale slope or intercept is not finite")
    shown = _apply_voi(levels, dataset)
    return _to_bytes(1 - shown if interpretation == "MONOCHROME1" else shown)


def _to_bytes(shares: NDArray[np.float64]) -> Gray:
    return np.asarray(np.rint(shares.clip(0, 1) * 255), dtype=np.uint8)


def _apply_voi(levels: NDArray[np.float64], dataset: "Dataset") -> NDArray[np.float64]:
    """Levels as a share of white, by the first table or window of the file (PS3.3, C.11.2.1)."""
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
    centre, width = _first_number(dataset, "WindowCenter"), _first_number(dataset, "WindowWidth")
    function = dataset.get("VOILUTFunction")
    function = function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"
    if centre is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        window = Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre, width, function
        window.PhotometricInterpretation, window.PixelRepresentation = "MONOCHROME2", 0
        window.BitsStored = 1  # so that it answers from 0 to 1
        with np.errstate(over="ignore"):  # far below a sigmoid's centre
            return np.asarray(apply_windowing(levels, window))
    low, high = levels.min(), levels.max()
    return np.asarray((levels - low) / max(high - low, 1e-9))


def _first_number(dataset: "Dataset", name: str) -> float | None:
    """The first value of an element that may have several; None where there is none or it is not finite."""
    value = dataset.get(name)
    if value is not None and not isinstance(value, (int, float, str)):
        value = value[0] if len(value) else None
    number = math.nan if value is None or value == "" else float(value)
    return number if math.isfinite(number) else None


def _spacing(dataset: "Dataset") -> tuple[float, float] | None:
    """Millimetres between rows and between columns.

    Ultrasound has its calibration in regions (PS3.3, C.8.5.5); regions that disagree give none. ImagerPixelSpacing
    is not used: it is measured at the detector of a projection radiograph, not in the patient.
    """
    regions = [
        (region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX"))
        for region in dataset.get("SequenceOfUltrasoundRegions") or ()
        if region.get("RegionSpatialFormat") == _PLANE
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRES
    ]
    spacings = [[10 * float(delta or 0) for delta in region] for region in regions]
    if not spacings:
        pair = dataset.get("PixelSpacing") or ()
        spacings = [[float(value) for value in pair]]
    first = spacings[0]
    if len(first) != 2 or not all(math.isfinite(value) and value > 0 for value in first):
        return None
    if not all(math.isclose(a, b, rel_tol=1e-3) for other in spacings for a, b in zip(first, other, strict=True)):
        return None
    return first[0], first[1]
