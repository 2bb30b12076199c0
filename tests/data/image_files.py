"""Image files of every kind, sound and damaged, for the tests of what reads them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

RANDOM = np.random.default_rng(0)
LOSSLESS = bytes.fromhex(  # 6 x 8 pixels, JPEG Lossless with first-order prediction, as GDCM writes it
    "ffd8ffc3000b080006000801011100ffc400160001010100000000000000000000000000030608ffda0008010100010000cfeaaaaaab50"
    "aaaaaab50aaaaaab50aaaaaab50aaaaaab50aaaaaabfffd900"
)


def write(path: Path, content: NDArray[Any] | Image.Image, **options: Any) -> Path:
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    image.save(path, **options)
    return path


def noise(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def dicom(
    path: Path, pixels: NDArray[Any] | list[bytes], syntax: str = uid.ExplicitVRLittleEndian, **tags: Any
) -> Path:
    """Write ``[H, W]`` or ``[H, W, 3]`` values, or compressed frames, with any tag set (or, by None, left out)."""
    little = syntax != uid.ExplicitVRBigEndian
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.UID(syntax)
    meta.MediaStorageSOPClassUID = uid.UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=little)
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.UltrasoundImageStorage, "1.2.3"
    if isinstance(pixels, np.ndarray):
        bits = 8 * pixels.dtype.itemsize
        values = {
            "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
            "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": bits,
            "BitsStored": bits,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
            "PixelData": pixels.tobytes(),
        }
        if pixels.ndim == 3:
            values["PlanarConfiguration"] = 0
    else:
        values = {"PixelRepresentation": 0, "BitsAllocated": 8, "BitsStored": 8, "PixelData": encapsulate(pixels)}
    for name, value in {**values, **tags}.items():
        if value is not None:
            setattr(dataset, name, value)
    if "BitsStored" in dataset:
        dataset.HighBit = dataset.BitsStored - 1
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if isinstance(pixels, list) or dataset.BitsAllocated <= 8 else "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


def region(row: float, column: float, form: int = 1, unit: int = 3) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = form, 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = column, row
    return item


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def seeds(folder: Path) -> dict[str, bytes]:
    """Small sound files of every kind."""
    gray, deep = noise(9, 11), noise(9, 11).astype(np.uint16) * 9
    page = [Image.fromarray(deep)]
    shape = {"Rows": 9, "Columns": 11, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        write(folder / "gray.png", gray),
        write(folder / "deep.png", deep),
        write(folder / "palette.png", Image.fromarray(gray).convert("P"), exif=exif),
        write(folder / "gray.jpg", gray, exif=exif),
        write(folder / "colour.jpg", noise(9, 11, 3), progressive=True),
        write(folder / "gray.bmp", gray),
        write(folder / "pages.tif", gray, save_all=True, append_images=page),
        write(folder / "packed.tif", noise(9, 11, 3), compression="tiff_lzw"),
        write(folder / "float.tif", gray.astype(np.float32), compression="tiff_deflate"),
        dicom(folder / "gray.dcm", gray, SequenceOfUltrasoundRegions=[region(0.01, 0.02)]),
        dicom(folder / "cine.dcm", deep, NumberOfFrames=2, PixelData=deep.tobytes() * 2, WindowCenter=9, WindowWidth=9),
        dicom(folder / "packed.dcm", [jpeg(gray)], uid.JPEGBaseline8Bit, **shape),
    ]
    paths += [
        dicom(folder / "lossless.dcm", [LOSSLESS], uid.JPEGLosslessSV1, **{**shape, "Rows": 6, "Columns": 8}),
        dicom(folder / "deep.dcm", deep, FrameTime=40, SequenceOfUltrasoundRegions=[region(-0.01, 0.02)]),
        dicom(folder / "bare.dcm", gray, uid.ImplicitVRLittleEndian),
    ]
    paths[-1].write_bytes(paths[-1].read_bytes()[132:])
    dataset = pydicom.dcmread(dicom(folder / "rle.dcm", noise(9, 11, 3)))
    dataset.compress(uid.RLELossless)
    dataset.save_as(folder / "rle.dcm")
    return {path.name: path.read_bytes() for path in [*paths, folder / "rle.dcm"]}


def flip(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]


def cut(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + content[at + value % 16 :]


def splice(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + content[at // 2 : at // 2 + value] + content[at:]


def truncate(content: bytes, at: int, value: int) -> bytes:
    return content[:at]


CHANGES: tuple[Callable[[bytes, int, int], bytes], ...] = (flip, cut, splice, truncate)
