"""A file -> scans: the only place where image files are decoded.

Formats are told by content, not by ending: PNG, JPEG, BMP, TIFF and DICOM. Whatever is wrong with a file is an
:class:`UnreadableImageError` of one line, and nothing that the decoders warn of reaches the terminal.

Gray levels, 8 bits whatever is stored:

- Colour becomes luminance (ITU-R 601); alpha is ignored, so that a transparent pixel keeps its stored colour.
- Gray PNG and TIFF of 16 or 32 bits: the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value in
  the file is taken as the range from black to white, because 12-bit scans in 16-bit files would be black otherwise.
  Pages of a TIFF share it if the first is as deep. Colour of 16 bits keeps its upper 8.
- Floating-point TIFF: a file with no value above 1 runs from 0 to 1, any other as the integers above.
- DICOM: modality transform, then the first VOI table or window (PS3.3, C.11.1 and C.11.2), as on the scanner's
  screen; without one, all that BitsStored can hold. Tables of single frames in functional groups are not read.

The orientation in EXIF data is applied. An animated PNG is refused, because its frames would be lost; a JPEG with
several pictures (MPO) is read as its first, which is the picture that every JPEG viewer shows (CIPA DC-007).
"""

import ctypes
import itertools
import logging
import math
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from busi_lab.errors import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Gray = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")
MAX_PIXELS = 50_000_000  # of one frame, times its samples in DICOM; a file of a few bytes can declare billions

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_EXPECTED = "expected PNG, JPEG, BMP, TIFF or DICOM"
_NUMBERED = 32  # the largest value of a mask whose lesions are numbered
_STRIP = 1 << 20  # pixels scaled at a time, so that deep images are not held twice
_TIFF_PHOTOMETRIC = 262
_CENTIMETRES, _PLANE = 3, 1  # PhysicalUnitsXDirection and RegionSpatialFormat, PS3.3 C.8.5.5
_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_GRAY_INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2")
_COLOUR_INTERPRETATIONS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # all decoded to RGB


class UnreadableImageError(Exception):
    """A file that is no intact image; the message says why."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One picture of a file.

    Attributes:
        pixels: uint8 ``[H, W]``.
        spacing: millimetres between rows and between columns; None where the file does not tell. Only DICOM does:
            the resolution in other formats is meant for printers.
        frame: number from 0 in a file of several frames; None in a file of one.
    """

    pixels: Gray
    spacing: tuple[float, float] | None
    frame: int | None


def read_scans(path: Path) -> Generator[Scan, None, None]:
    """Read a file frame by frame; at any time one frame is in memory.

    Raises:
        UnreadableImageError: the file, or the frame that comes next, is empty, cut, corrupt, too large, of another
            format, or needs a decoder that is not installed.
    """
    with closing(_decode(path)) as scans:
        while True:
            with _quiet(), _one_line_errors():
                scan = next(scans, None)
            if scan is None:
                return
            yield scan


def is_scan_file(path: Path) -> bool:
    """Whether a file in a folder of scans is one: by its ending, or DICOM without any; hidden files are none.

    DICOM files are often named by a UID, whose last number is no ending.
    """
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix and not path.suffix[1:].isdigit():
        return path.suffix.lower() in SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_scan(path: Path) -> Scan:
    """Read the only scan of a file.

    Raises:
        UnreadableImageError: as :func:`read_scans`, or the file has several frames.
    """
    with closing(read_scans(path)) as scans:
        scan = next(scans)
    if scan.frame is not None:
        raise UnreadableImageError("the file holds several frames; expected one image: export single frames")
    return scan


def read_image(path: Path) -> Gray:
    """The pixels of :func:`read_scan`, uint8 ``[H, W]``."""
    return read_scan(path).pixels


def read_mask(path: Path) -> Mask:
    """Read one mask file, stored as 1-bit, gray, RGB or RGBA.

    Returns:
        bool ``[H, W]``, true where the value is above half of the file's maximum, so that masks of 0 and 1,
        0 and 255, and softened edges all read as meant. In a file without a value above 32, lesions are taken to be
        numbered, and all values but 0 are lesion.

    Raises:
        UnreadableImageError: as :func:`read_image`.
    """
    values = read_image(path)
    largest = values.max(initial=0)
    mask: Mask = values > (0 if largest <= _NUMBERED else largest / 2)
    return mask


class _Silence:
    """What the decoders print or allow while any thread is decoding; put back by the last one to leave.

    ``warnings.catch_warnings`` of several threads would undo each other in the wrong order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._restore = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\b|pydicom\b|busi_lab\.data\.reading")
                for name in ("PIL", "pydicom"):
                    logger = logging.getLogger(name)
                    self._restore.callback(logger.setLevel, logger.level)
                    logger.setLevel(logging.CRITICAL + 1)
                # Pillow refuses twice this number; that also holds for compressed frames inside DICOM.
                self._restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore.close()


_silence = _Silence()


@contextmanager
def _quiet() -> Iterator[None]:
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Damaged files make the decoders raise nearly every type of exception; all become ours here."""
    try:
        yield
    except UnreadableImageError as error:
        raise UnreadableImageError(_plain(error)) from error.__cause__
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"the image is larger than {MAX_PIXELS} pixels") from None
    except Exception as error:
        raise UnreadableImageError(f"the image cannot be decoded ({_plain(error)})") from error


def _plain(error: Exception) -> str:
    """The message of ``error`` without what a damaged file may have put into it: line ends, escapes, whole pages."""
    return "".join(letter if letter.isprintable() else "?" for letter in one_line(error))[:300]


def _decode(path: Path) -> Generator[Scan, None, None]:
    with path.open("rb") as file:
        head = file.read(132)
        if not head:
            raise UnreadableImageError("the file is empty")
        file.seek(0)
        if head[128:] == b"DICM":
            yield from _decode_dicom(path, marked=True)
            return
        try:  # not by its path, because Pillow maps such files and then turns TIFF pages of some orientations wrongly
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError:
            if path.suffix.lower() not in (".dcm", ".dicom"):
                raise UnreadableImageError(_what_else(path)) from None
            image = None
        if image is None:
            yield from _decode_dicom(path, marked=False)
        else:
            yield from _decode_image(image)


def _what_else(path: Path) -> str:
    """What a file is that none of our formats fits."""
    try:
        with Image.open(path) as image:
            found = image.format
    except Exception:  # the file may be anything
        found = None
    if found is None or found in _FORMATS:
        return f"the content is not an image; {_EXPECTED}"
    return f"the file is {found}; {_EXPECTED}: convert it to PNG"


# ------------------------------------------------------------------------------------- PNG, JPEG, BMP, TIFF


def _decode_image(image: Image.Image) -> Generator[Scan, None, None]:
    if image.format == "TIFF":
        _hush_libtiff()
    several = getattr(image, "is_animated", False)
    if several and image.format == "PNG":
        raise UnreadableImageError("the file is an animated PNG; expected one image: export single frames")
    if not several or image.format != "TIFF":
        _check_size(*image.size)
        yield Scan(_gray(image, _largest(image)), None, None)
        return
    largest = max(_largest(image) for _ in _pages(image)) if _is_deep(image) else None
    for number in _pages(image):
        yield Scan(_gray(image, _largest(image) if largest is None else largest), None, number)


@cache
def _hush_libtiff() -> None:
    """Stop Pillow's libtiff from printing to the terminal past Python; where it cannot be reached, it prints."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _pages(image: Image.Image) -> Iterator[int]:
    """Turn to one page after the other; they are not counted first, because a small file can have very many."""
    for number in itertools.count():
        try:
            image.seek(number)
        except EOFError:
            return
        _check_size(*image.size)
        yield number


def _check_size(columns: int, rows: int, samples: int = 1) -> None:
    if rows < 1 or columns < 1:
        raise UnreadableImageError(f"the image is {columns} x {rows} pixels; expected at least one pixel")
    if rows * columns * samples > MAX_PIXELS:
        raise UnreadableImageError(
            f"the image is {columns} x {rows} pixels{f' of {samples} values' if samples > 1 else ''}; expected at most "
            f"{MAX_PIXELS} values"
        )


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _strips(image: Image.Image) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Rows of an image of one channel with their values."""
    height = max(1, _STRIP // image.width)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield slice(top, bottom), np.asarray(image.crop((0, top, image.width, bottom)))


def _largest(image: Image.Image) -> float:
    """The largest value of a deep image, checked; 255 for any other."""
    if not _is_deep(image):
        return 255
    lowest, largest = math.inf, -math.inf
    for _, values in _strips(image):
        if not np.isfinite(values).all():
            raise UnreadableImageError("the image holds values that are not finite; expected gray levels")
        lowest, largest = min(lowest, float(values.min())), max(largest, float(values.max()))
    if lowest < 0 or largest >= 1 << 16:
        raise UnreadableImageError(
            f"the image holds values from {lowest:g} to {largest:g}; expected gray levels from 0 to 65535"
        )
    return largest


def _gray(image: Image.Image, largest: float) -> Gray:
    """The current page, upright; ``largest`` is the largest value of the file."""
    ImageOps.exif_transpose(image, in_place=True)
    if not _is_deep(image):
        return np.asarray(image.convert("L"))
    bits = next(bits for bits in (8, 10, 12, 14, 16) if largest < 1 << bits)
    pixels = np.empty((image.height, image.width), dtype=np.uint8)
    for rows, values in _strips(image):
        if values.dtype.kind != "f":
            pixels[rows] = values >> (bits - 8)
        elif largest <= 1:
            pixels[rows] = np.rint(values * 255)
        else:
            pixels[rows] = np.minimum(np.rint(values / (1 << (bits - 8))), 255)
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:  # Pillow inverts these up to 8 bits only
        np.subtract(255, pixels, out=pixels)
    return pixels


# -------------------------------------------------------------------------------------------------- DICOM


def _decode_dicom(path: Path, marked: bool) -> Generator[Scan, None, None]:
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
        raise UnreadableImageError(f"the content is not an image; {_EXPECTED}")
    dataset.set_original_encoding(True, True)
    return dataset, _IMPLICIT_LITTLE_ENDIAN


def _check_header(dataset: "Dataset") -> int:
    """Refuse what is no picture or too large before anything is decoded; the number of frames."""
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation")
    if any(dataset.get(name) is None for name in needed):
        kind = getattr(dataset.get("SOPClassUID"), "name", "")
        raise UnreadableImageError(f"the DICOM file holds no pixels{kind and f' ({kind})'}; expected an image")
    samples, interpretation = int(dataset.SamplesPerPixel), str(dataset.PhotometricInterpretation)
    _check_size(int(dataset.Columns), int(dataset.Rows), samples)
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
    if dataset.get("VOILUTSequence"):
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
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if centre is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        if function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (levels - centre) / width, -700, 700))))
        if function == "LINEAR_EXACT":
            return np.asarray((levels - centre) / width + 0.5)
        return np.asarray((levels - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5)
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
