"""A file -> scans: the only place where image files are decoded.

Formats are told by content, not by ending: PNG, JPEG, BMP, TIFF and DICOM. Whatever is wrong with a file is an
:class:`UnreadableImageError` of one line, and nothing that the decoders warn of reaches the terminal.

Gray levels, 8 bits whatever is stored:

- Colour becomes luminance (ITU-R 601); alpha is ignored, so that a transparent pixel keeps its stored colour.
- Gray PNG and TIFF of 16 or 32 bits: the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value in
  the file is taken as the range from black to white, because 12-bit scans in 16-bit files would be black otherwise.
  Pages of a TIFF share it if the first is as deep. Colour of 16 bits keeps its upper 8.
- Floating-point TIFF: a file with no value above 1 runs from 0 to 1, any other as the integers above.
- DICOM: as :mod:`busi_lab.data.dicom_levels` says.

The orientation in EXIF data is applied. An animated PNG is refused, because its frames would be lost; a JPEG with
several pictures (MPO) is read as its first, which is the picture that every JPEG viewer shows (CIPA DC-007).
"""

import ctypes
import itertools
import logging
import math
import re
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from busi_lab.data.dicom import decode_dicom, is_marked, may_be_bare
from busi_lab.data.foreign import what_else
from busi_lab.data.scan import MAX_PIXELS, Gray, Scan, UnreadableImageError, check_size
from busi_lab.errors import one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_STRIP = 1 << 20  # pixels scaled at a time, so that deep images are not held twice
_TIFF_PHOTOMETRIC = 262


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
            head = file.read(132)
        return is_marked(head) or may_be_bare(head)
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


def read_values(path: Path) -> NDArray[Any]:
    """Read the values of a mask file as they are stored, upright; they are not scaled to 8 bits.

    Returns:
        Whole numbers ``[H, W]``, or colours uint8 ``[H, W, 3]``. A file of 1 bit holds 0 and 255, and so does a
        floating-point file with no value above 1. Where all pixels have one colour, their transparency is returned;
        where all entries of a palette are of one colour, the numbers of the entries.

    Raises:
        UnreadableImageError: as :func:`read_image`.
    """
    with _quiet(), _one_line_errors(), path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            file.seek(0)
            with suppress(UnidentifiedImageError):
                image = Image.open(file, formats=_FORMATS)
                if image.format == "JPEG" or not getattr(image, "is_animated", False):
                    return _values(image)
    return read_image(path)  # DICOM, or a file that this refuses


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
                warnings.filterwarnings("ignore", module=r"PIL\b|pydicom\b|busi_lab\.data\.(reading|dicom)")
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
        raise type(error)(_plain(error)) from error.__cause__
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"the image is larger than {MAX_PIXELS} pixels") from None
    except Exception as error:
        raise UnreadableImageError(f"the image cannot be decoded ({_plain(error)})") from error


def _plain(error: Exception) -> str:
    """The message of ``error`` without what a damaged file may have put into it, and without addresses in memory.

    The former are line ends, escapes, whole pages; the latter differ from call to call.
    """
    words = re.sub(r" at 0x[0-9a-fA-F]+", "", one_line(error))
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:300]


def _decode(path: Path) -> Generator[Scan, None, None]:
    with path.open("rb") as file:
        head = file.read(132)
        if not head:
            raise UnreadableImageError("the file is empty")
        file.seek(0)
        if is_marked(head):
            yield from decode_dicom(path, marked=True)
            return
        try:  # not by its path, because Pillow maps such files and then turns TIFF pages of some orientations wrongly
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError:
            if path.suffix.lower() not in (".dcm", ".dicom") and not may_be_bare(head):
                raise UnreadableImageError(what_else(path, _FORMATS)) from None
            image = None
        if image is None:
            yield from decode_dicom(path, marked=False)
        else:
            yield from _decode_image(image)


def _decode_image(image: Image.Image) -> Generator[Scan, None, None]:
    if image.format == "TIFF":
        _hush_libtiff()
    several = getattr(image, "is_animated", False)
    if several and image.format == "PNG":
        raise UnreadableImageError("the file is an animated PNG; expected one image: export single frames")
    if not several or image.format != "TIFF":
        check_size(*image.size)
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
        check_size(*image.size)
        yield number


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


def _values(image: Image.Image) -> NDArray[Any]:
    """What an image stores, for :func:`read_values`."""
    if image.format == "TIFF":
        _hush_libtiff()
    check_size(*image.size)
    largest = _largest(image)
    ImageOps.exif_transpose(image, in_place=True)
    if _is_deep(image):
        return _deep_values(image, largest)
    if "A" in image.getbands() and image.mode != "LAB":
        *colour, alpha = (np.asarray(channel) for channel in image.convert("RGBA").split())
        if all(channel.min() == channel.max() for channel in colour) and alpha.min() < alpha.max():
            return alpha
    if image.mode == "P":
        colours, entries = np.asarray(image.convert("RGB")), np.asarray(image)
        return entries if (colours == colours[0, 0]).all() else colours
    values: NDArray[Any] = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))
    return values


def _deep_values(image: Image.Image, largest: float) -> NDArray[Any]:
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = np.rint(values * (255 if largest <= 1 else 1))
        largest = 255 if largest <= 1 else largest
    whole = values.astype(np.int32)
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:
        return (1 << next(bits for bits in (8, 10, 12, 14, 16) if largest < 1 << bits)) - 1 - whole
    return whole
