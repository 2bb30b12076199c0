"""A DICOM file -> scans; needs pydicom, which is imported when the first such file is read.

Files without preamble are read as well. A file that cannot be read frame by frame, because its header does not keep
to what it declares, is read whole if it is of moderate size.
"""

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from busi_lab.data.dicom_levels import COLOUR, GRAY, PALETTE, Levels
from busi_lab.data.dicom_places import find_spacing, origin_of
from busi_lab.data.scan import EXPECTED, NoPictureError, Scan, UnreadableImageError, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_WHOLE = 512 << 20  # bytes of a file, and of its pixels, that may be read at once
_MARK = b"DICM"  # behind 128 bytes of preamble
_GROUP_2 = b"\x02\x00"  # begins a file that lacks its preamble alone
_FIRST_ELEMENTS = tuple(b"\x08\x00" + bytes((number, 0)) for number in (0, 1, 5, 8, 0x16))  # of group 8
_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = {True: "1.2.840.10008.1.2.1", False: "1.2.840.10008.1.2.2"}  # by whether it is little endian


def is_marked(head: bytes) -> bool:
    """Whether the first 132 bytes of a file have the marker of DICOM."""
    return head[128:132] == _MARK


def may_be_bare(head: bytes) -> bool:
    """Whether a file begins as DICOM without preamble does: with the elements that stand first."""
    return (head[:2] == _GROUP_2 and head[4:6] in (b"UL", b"OB", b"UI")) or head[:4] in _FIRST_ELEMENTS


def decode_dicom(path: Path, marked: bool) -> Generator[Scan, None, None]:
    """Frames of a DICOM file, with its marker or without."""
    try:
        from pydicom.uid import UID
    except ImportError:
        raise UnreadableImageError("reading DICOM needs pydicom: pip install 'busi-lab[dicom]'") from None
    dataset, syntax = _read_header(path, marked)
    rows = dataset.get_item("Rows")  # as it is stored, before anything asks for its value
    shifted = getattr(rows, "is_implicit_VR", None) not in (None, UID(syntax).is_implicit_VR)
    frames = _check_header(dataset)
    _check_decoder(syntax, int(dataset.BitsStored))

    def stored() -> Iterator[NDArray[Any]]:
        return _frames(path, dataset, syntax, frames, shifted)

    levels = Levels(dataset)
    if levels.need_range:
        levels.set_range(stored())
    spacing, regions = find_spacing(dataset)
    origin = origin_of(dataset)
    for number, values in enumerate(stored()):
        yield Scan(levels.to_gray(values), spacing, number if frames > 1 else None, regions, origin(number))


def _frames(path: Path, dataset: "Dataset", syntax: str, frames: int, shifted: bool) -> Iterator[NDArray[Any]]:
    """Stored values frame by frame; with ``shifted`` they do not begin where the syntax says.

    Raises:
        UnreadableImageError: they are cut or corrupt, or need a decoder that is not installed.
    """
    from pydicom.pixels.utils import iter_pixels

    found = 0
    try:
        if shifted:
            raise ValueError("the header is written otherwise than it declares")
        for values in itertools.islice(iter_pixels(path, transfer_syntax_uid=syntax), frames):
            yield values
            found += 1
    except Exception as error:
        whole = None if found else _read_whole(path, dataset, syntax, frames)
        if whole is not None:
            yield from whole
            return
        if isinstance(error, RuntimeError):  # each decoder that knows the syntax gave up, as Pillow on JPEG of 12 bits
            raise UnreadableImageError(
                f"the pixels are corrupt or need another decoder, pip install 'busi-lab[dicom]' ({error})"
            ) from error
        raise
    if found < frames:
        raise UnreadableImageError(f"the file is cut: expected {frames} frames, found {found}")


def _read_whole(path: Path, header: "Dataset", syntax: str, frames: int) -> Iterator[NDArray[Any]] | None:
    """All frames of a file, as far as its size allows and pydicom can make sense of it; else None."""
    from pydicom import dcmread
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import UID

    size = frames * int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel)
    if max(size * int(header.BitsAllocated) // 8, path.stat().st_size) > _WHOLE:
        return None
    try:
        dataset = dcmread(path, force=True)
        dataset.file_meta = getattr(dataset, "file_meta", FileMetaDataset())
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        values = pixel_array(dataset, raw=False)
    except Exception:  # the first failure says more
        return None
    return iter(values if frames > 1 else values[None])


def _read_header(path: Path, marked: bool) -> "tuple[Dataset, str]":
    """The header of a file and its transfer syntax, which is told by how it is written where it does not say."""
    from pydicom import dcmread
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    try:
        with path.open("rb") as file:
            file.seek(132 if marked else 0)
            meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >= 0x00030000)
        syntax = UID(str(meta.get("TransferSyntaxUID", "")))
        if syntax.is_transfer_syntax and syntax.is_deflated:  # inflating it whole could fill the memory
            raise UnreadableImageError(f"the DICOM file is stored as {syntax.name}; store it uncompressed")
        dataset = dcmread(path, stop_before_pixels=True, force=not marked)
        kind = UID(str(dataset.get("SOPClassUID", "")))
        known = "Rows" in dataset or kind.name != kind
    except UnreadableImageError:
        raise
    except Exception:  # without the marker, the file may be anything
        if marked:
            raise
        known = False
    if not (marked or known):
        raise UnreadableImageError(f"the content is not an image; {EXPECTED}")
    if syntax:
        return dataset, str(syntax)
    implicit, little = dataset.original_encoding
    return dataset, _IMPLICIT if implicit else _EXPLICIT[bool(little)]


def _check_header(dataset: "Dataset") -> int:
    """Refuse what is no picture or too large before anything is decoded; the number of frames."""
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation")
    missing = [name for name in needed if dataset.get(name) is None]
    if missing:
        meta = getattr(dataset, "file_meta", {})
        kind = dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
        name = getattr(kind, "name", "")
        words = f"the DICOM file holds no pixels{name and f' ({name})'}"
        if name and name != kind and len(missing) == len(needed) and "Image Storage" not in name:  # else it is cut
            raise NoPictureError(words)
        raise UnreadableImageError(f"{words}; expected an image")
    samples, interpretation = int(dataset.SamplesPerPixel), str(dataset.PhotometricInterpretation)
    check_size(int(dataset.Columns), int(dataset.Rows), samples)
    expected = dict.fromkeys(COLOUR, 3) | dict.fromkeys((*GRAY, PALETTE), 1)
    if expected.get(interpretation) != samples:
        raise UnreadableImageError(
            f"the DICOM file has the photometric interpretation {interpretation} with {samples} samples; expected "
            f"{', '.join(expected)}"
        )
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (1, 8, 16) or not 1 <= stored <= allocated:
        raise UnreadableImageError(f"the DICOM file has {stored} of {allocated} bits per value; expected at most 16")
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _check_decoder(syntax: str, bits: int) -> None:
    """Refuse what is not decoded here before pydicom tries, and says less."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    from busi_lab.data.dicom_jpeg import LABEL, LOSSLESS, register

    register()
    name = UID(syntax).name
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableImageError(
            f"the pixels are stored as {name}, which is not read; store them uncompressed"
        ) from None
    deep = " of more than 8 bits" if syntax in LOSSLESS and bits > 8 else ""
    if not decoder.is_available or (deep and decoder.available_plugins == (LABEL,)):
        advice = "python-gdcm" if deep else "'busi-lab[dicom]'"
        raise UnreadableImageError(
            f"the pixels are stored as {name}{deep}, which no installed decoder reads: pip install {advice}, or store "
            "them uncompressed"
        )
