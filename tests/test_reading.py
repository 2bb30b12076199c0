import io
import logging
import struct
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

from busi_lab.data.reading import SUFFIXES, read_image, read_mask, read_scans
from busi_lab.data.scan import UnreadableImageError

RANDOM = np.random.default_rng(0)
SQUARE = np.zeros((20, 30), np.uint8)
SQUARE[5:10, 5:15] = 255
RAMP = np.arange(6 * 40, dtype=np.uint8).reshape(6, 40)


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


@pytest.fixture(autouse=True)
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is warned of or printed, whatever is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=pytest.PytestUnraisableExceptionWarning)
        yield
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------------------------- PNG, JPEG, BMP, TIFF


RGB = np.stack([SQUARE] * 3, axis=-1)
ALPHA = np.full_like(SQUARE, 255)


@pytest.mark.parametrize(
    "stored",
    [
        Image.fromarray(SQUARE).convert("1"),
        SQUARE,
        RGB,
        np.dstack([RGB, ALPHA]),
        np.dstack([RGB, SQUARE]),
        SQUARE // 255,
        SQUARE // 255 * 128,
        SQUARE.astype(np.uint16) * 257,
        SQUARE.astype(np.uint16) // 255,
        Image.fromarray(SQUARE // 255).convert("P"),
        Image.fromarray(np.dstack([SQUARE, ALPHA])),
    ],
    ids=["1-bit", "gray", "RGB", "RGBA", "alpha", "0/1", "0/128", "16-bit", "16-bit 0/1", "palette", "gray-alpha"],
)
def test_masks_of_every_kind_read_alike(tmp_path: Path, stored: Any) -> None:
    mask = read_mask(write(tmp_path / "mask.png", stored))
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, SQUARE > 0)


def test_soft_edges_of_a_mask_are_cut_at_half(tmp_path: Path) -> None:
    values = np.array([[0, 60, 127, 128, 200, 255]], np.uint8)
    assert read_mask(write(tmp_path / "m.png", values)).tolist() == [[False, False, False, True, True, True]]


def test_numbered_lesions_are_all_lesion(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 3, 0]], np.uint8)
    assert read_mask(write(tmp_path / "m.png", values)).tolist() == [[False, True, True, True, False]]


def test_colour_becomes_luminance_and_16_bits_become_8(tmp_path: Path) -> None:
    gray = noise(20, 30)
    colour = np.stack([gray] * 3, axis=-1)
    colour[:3, :4] = (255, 0, 0)
    read = read_image(write(tmp_path / "colour.png", colour))
    assert read.dtype == np.uint8 and read.shape == (20, 30)
    assert np.array_equal(read[3:], gray[3:])
    assert set(read[:3, :4].ravel()) == {76}  # 0.299 of full red (ITU-R 601)
    deep = write(tmp_path / "deep.png", gray.astype(np.uint16) * 256 + 99)
    assert np.array_equal(read_image(deep), gray)


@pytest.mark.parametrize("ending", [ending for ending in SUFFIXES if ending not in (".dcm", ".dicom", ".jpg", ".jpeg")])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 2), (20, 30)])
def test_every_lossless_format_keeps_every_pixel(tmp_path: Path, ending: str, shape: tuple[int, int]) -> None:
    gray = noise(*shape)
    assert np.array_equal(read_image(write(tmp_path / f"scan{ending}", gray)), gray)


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    gray = noise(9, 11)
    for name, form in (("a.dcm", "PNG"), ("b.png", "BMP"), ("c.jpg", "TIFF"), ("d", "PNG")):
        assert np.array_equal(read_image(write(tmp_path / name, gray, format=form)), gray)
    assert np.array_equal(read_image(dicom(tmp_path / "e.png", gray)), gray)


def test_jpeg_gray_colour_and_cmyk(tmp_path: Path) -> None:
    gray = np.full((16, 16), 90, np.uint8)
    assert np.abs(read_image(write(tmp_path / "g.jpg", gray, quality=95)).astype(int) - 90).max() <= 1
    green = np.zeros((16, 16, 3), np.uint8)
    green[..., 1] = 255
    for mode in ("RGB", "CMYK"):
        path = write(tmp_path / f"{mode}.jpg", Image.fromarray(green).convert(mode), quality=95)
        assert np.abs(read_image(path).astype(int) - 150).max() <= 2  # 0.587 of full green


def test_alpha_and_the_palettes_transparency_are_ignored(tmp_path: Path) -> None:
    gray = noise(20, 30)
    assert np.array_equal(read_image(write(tmp_path / "a.png", np.dstack([gray] * 3 + [0 * gray]))), gray)
    indexed = Image.fromarray(gray).convert("P")
    assert np.array_equal(read_image(write(tmp_path / "p.png", indexed, transparency=bytes(256))), gray)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    upright = np.full((16, 32), 40, np.uint8)
    upright[:8, :8] = 220  # the upper left corner is bright
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright.T[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"scan.{ending}", np.ascontiguousarray(stored), exif=exif)
    assert np.abs(read_image(path).astype(int) - upright).max() <= 6


@pytest.mark.parametrize(("top", "bits"), [(200, 8), (900, 10), (4095, 12), (4096, 14), (16384, 16), (65535, 16)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_range_of_16_bits_follows_the_largest_value(tmp_path: Path, top: int, bits: int, ending: str) -> None:
    values = np.linspace(0, top, 20 * 30).reshape(20, 30).astype(np.uint16)
    assert np.array_equal(read_image(write(tmp_path / f"a.{ending}", values)), values >> (bits - 8))


def test_deep_tiffs_of_every_kind(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 20 * 30).reshape(20, 30)
    expected = values.astype(np.uint16) >> 4
    big = Image.frombytes("I;16B", (30, 20), values.astype(">u2").tobytes())
    assert np.array_equal(read_image(write(tmp_path / "big.tif", big)), expected)
    assert np.array_equal(read_image(write(tmp_path / "int.tif", values.astype(np.int32))), expected)
    inverted = write(tmp_path / "white.tif", values.astype(np.uint16), tiffinfo={262: 0})
    with Image.open(inverted) as image:
        assert image.tag_v2[262] == 0
    assert np.array_equal(read_image(inverted), 255 - expected)
    shares = write(tmp_path / "shares.tif", (values / 4095).astype(np.float32))
    assert np.array_equal(read_image(shares), np.rint((values / 4095).astype(np.float32) * 255))
    floats = write(tmp_path / "floats.tif", values.astype(np.float32))
    assert np.abs(read_image(floats).astype(int) - expected).max() <= 1
    for bad in (np.nan, np.inf):
        values[3, 3] = bad
        with pytest.raises(UnreadableImageError, match="not finite"):
            read_image(write(tmp_path / "bad.tif", values.astype(np.float32)))
    for wrong in (-1, 65536):
        with pytest.raises(UnreadableImageError, match=f"{wrong}.*expected gray levels from 0 to 65535"):
            read_image(write(tmp_path / "wrong.tif", np.full((2, 2), wrong, np.int32)))


def test_pages_of_a_tiff_are_frames_of_any_size(tmp_path: Path) -> None:
    pages = [noise(20, 30), noise(7, 5), noise(1, 1)]
    rest = [Image.fromarray(page) for page in pages[1:]]
    path = write(tmp_path / "pages.tif", pages[0], save_all=True, append_images=rest)
    scans = list(read_scans(path))
    assert [scan.frame for scan in scans] == [0, 1, 2]
    assert all(np.array_equal(scan.pixels, page) for scan, page in zip(scans, pages, strict=True))
    with pytest.raises(UnreadableImageError, match="several frames; expected one image"):
        read_image(path)
    single = list(read_scans(write(tmp_path / "page.tif", pages[0])))
    assert [(scan.frame, scan.spacing) for scan in single] == [(None, None)]


def test_deep_pages_share_one_range(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 4), value, np.uint16)) for value in (100, 4000)]
    scans = list(read_scans(write(tmp_path / "deep.tif", pages[0], save_all=True, append_images=pages[1:])))
    assert [int(scan.pixels[0, 0]) for scan in scans] == [100 >> 4, 4000 >> 4]


def test_animations_are_refused_and_other_formats_named(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(9, 9)) for _ in range(3)]
    animated = write(tmp_path / "a.png", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImageError, match="animated PNG; expected one image"):
        read_image(animated)
    for form in ("GIF", "WEBP", "PPM"):
        path = write(tmp_path / "scan.png", frames[0].convert("RGB"), format=form)
        with pytest.raises(UnreadableImageError, match=f"the file is {form}; expected PNG, .* convert it to PNG"):
            read_image(path)
    picture = write(tmp_path / "phone.jpg", frames[0], format="MPO", save_all=True, append_images=frames[1:])
    assert len(list(read_scans(picture))) == 1


# --------------------------------------------------------------------------------------------- damages


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"an image", "the content is not an image"),
        (bytes(500), "the content is not an image"),
        (bytes(128) + b"DICM", "cannot be decoded|transfer syntax"),
    ],
)
@pytest.mark.parametrize("name", ["scan.png", "scan.dcm"])
def test_what_is_no_image_is_one_line(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=message):
        read_image(tmp_path / name)


def test_missing_files_and_folders_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.png"):
        with pytest.raises(UnreadableImageError, match="directory"):
            read_image(path)


def huge_png(columns: int, rows: int) -> bytes:
    """A header that declares a size, and hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", PngImagePlugin._crc32(name + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x\x9c") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 5_001), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_declared_sizes_are_checked_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(huge_png(*size))
    start = time.perf_counter()
    with pytest.raises(UnreadableImageError, match=r"50000000|cannot be decoded"):
        read_image(tmp_path / "bomb.png")
    assert time.perf_counter() - start < 1


def test_a_large_scan_is_fast(tmp_path: Path) -> None:
    path = write(tmp_path / "large.png", np.zeros((3000, 4000), np.uint16))
    start = time.perf_counter()
    assert read_image(path).shape == (3000, 4000)
    assert time.perf_counter() - start < 5


def test_a_png_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    gray = noise(9, 11)
    whole = write(tmp_path / "whole.png", gray).read_bytes()
    path = tmp_path / "cut.png"
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            assert np.array_equal(read_image(path), gray)  # only the end mark is missing
        except UnreadableImageError:
            refused += 1
    assert refused >= len(whole) - 20


def test_settings_of_others_are_put_back_even_by_threads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", noise(50, 50))
    before = (Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL").level, list(warnings.filters))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [path] * 200))
    assert before == (Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL").level, list(warnings.filters))


# ----------------------------------------------------------------------------------------------- DICOM


def test_dicom_gray_levels_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    assert np.array_equal(read_image(dicom(path, RAMP)), RAMP)
    assert np.array_equal(read_image(dicom(path, RAMP, PhotometricInterpretation="MONOCHROME1")), 255 - RAMP)
    assert np.array_equal(read_image(dicom(path, RAMP, syntax=uid.ImplicitVRLittleEndian)), RAMP)
    values = np.array([[0, 1000, 2048, 4095]], np.uint16)
    assert read_image(dicom(path, values, BitsStored=12)).tolist() == [[0, 62, 128, 255]]  # of 4095
    signed = np.array([[-2048, 0, 2047]], np.int16)
    assert read_image(dicom(path, signed, BitsStored=12)).tolist() == [[0, 128, 255]]
    big = dicom(path, values, syntax=uid.ExplicitVRBigEndian, BitsStored=12, PixelData=values.astype(">u2").tobytes())
    assert read_image(big).tolist() == [[0, 62, 128, 255]]
    garbage = values | 0xF000  # above BitsStored
    assert read_image(dicom(path, garbage, BitsStored=12)).tolist() == [[0, 62, 128, 255]]


def test_dicom_windows_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    values = np.array([[0, 999, 1000, 1050, 1100, 4000]], np.uint16)
    window = {"WindowCenter": [1050.5, 7], "WindowWidth": [101, 7], "BitsStored": 12}
    # (x - (c - 0.5)) / (w - 1) + 0.5: black at 1000, white at 1100
    assert read_image(dicom(path, values, **window)).tolist() == [[0, 0, 0, 128, 255, 255]]
    exact = {**window, "VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 1050, "WindowWidth": 100}
    assert read_image(dicom(path, values, **exact)).tolist() == [[0, 0, 0, 128, 255, 255]]
    sigmoid = read_image(dicom(path, values, **{**exact, "VOILUTFunction": "SIGMOID"})).tolist()
    assert sigmoid == [[0, 29, 30, 128, 225, 255]]  # 255 / (1 + exp(2)) = 30.4 at 1000
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1050.5, "WindowWidth": 101}
    assert read_image(dicom(path, values, BitsStored=12, **rescaled)).tolist() == [[0, 0, 0, 255, 255, 255]]
    identity = read_image(dicom(path, RAMP, WindowCenter=128, WindowWidth=256))
    assert np.array_equal(identity, RAMP)
    useless = read_image(dicom(path, RAMP, WindowCenter=128, WindowWidth=0))
    assert np.array_equal(useless, RAMP)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 1000, 8], [10, 20, 30]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    assert read_image(dicom(path, values, VOILUTSequence=[table], BitsStored=12)).tolist() == [[10, 10, 10, 30, 30, 30]]


def test_dicom_colour_becomes_luminance(tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    colour = noise(6, 8, 3)
    expected = np.asarray(Image.fromarray(colour).convert("L"))
    assert np.array_equal(read_image(dicom(path, colour)), expected)
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1)).tobytes()
    assert np.array_equal(read_image(dicom(path, colour, PlanarConfiguration=1, PixelData=planes)), expected)
    ycc = np.array(Image.fromarray(colour).convert("YCbCr"))
    read = read_image(dicom(path, ycc, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(read.astype(int) - expected).max() <= 2
    halved = np.concatenate([ycc[:, ::2, :1], ycc[:, 1::2, :1], ycc[:, ::2, 1:]], axis=2)  # Y1 Y2 Cb Cr
    halved[..., 2:] = 128
    read = read_image(dicom(path, ycc, PhotometricInterpretation="YBR_FULL_422", PixelData=halved.tobytes()))
    assert np.abs(read.astype(int) - ycc[..., 0]).max() <= 1


def test_dicom_palettes(tmp_path: Path) -> None:
    entries = {}
    for colour, table in (("Red", [0, 255, 0]), ("Green", [0, 0, 255]), ("Blue", [0, 0, 0])):
        entries[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        entries[f"{colour}PaletteColorLookupTableData"] = np.array(table, "<u2").__mul__(257).tobytes()
    values = np.array([[0, 1, 2, 9]], np.uint8)
    path = dicom(tmp_path / "scan.dcm", values, PhotometricInterpretation="PALETTE COLOR", **entries)
    assert read_image(path).tolist() == [[0, 76, 150, 150]]  # beyond the table is its last entry


def test_dicom_frames_come_one_by_one(tmp_path: Path) -> None:
    frames = noise(40, 200, 300)
    path = dicom(
        tmp_path / "cine.dcm",
        frames[0],
        PixelData=frames.tobytes(),
        NumberOfFrames=40,
        SequenceOfUltrasoundRegions=[region(0.01, 0.02)],
    )
    tracemalloc.start()
    for number, scan in enumerate(read_scans(path)):
        assert (scan.frame, scan.spacing) == (number, pytest.approx((0.1, 0.2)))
        assert np.array_equal(scan.pixels, frames[number])
    assert number == 39
    assert tracemalloc.get_traced_memory()[1] < frames.nbytes / 3
    tracemalloc.stop()
    with pytest.raises(UnreadableImageError, match="several frames"):
        read_image(path)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.3, 0.4]}, (0.3, 0.4)),
        ({"ImagerPixelSpacing": [0.3, 0.4]}, None),
        ({"PixelSpacing": [0, 0.4]}, None),
        ({"PixelSpacing": [-0.3, 0.4]}, None),
        ({"PixelSpacing": ["NaN", 0.4]}, None),
        ({"PixelSpacing": None}, None),
        ({"SequenceOfUltrasoundRegions": [region(0.03, 0.04)], "PixelSpacing": [9, 9]}, (0.3, 0.4)),
        ({"SequenceOfUltrasoundRegions": [region(0.03, 0.04)] * 2}, (0.3, 0.4)),
        ({"SequenceOfUltrasoundRegions": [region(0.03, 0.04), region(0.05, 0.04)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(0.03, 0.04), region(1, 1, form=3)]}, (0.3, 0.4)),
        ({"SequenceOfUltrasoundRegions": [region(0.03, 0.04, unit=4)], "PixelSpacing": [0.5, 0.5]}, (0.5, 0.5)),
        ({"SequenceOfUltrasoundRegions": [region(0, 0.04)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(float("nan"), 0.04)]}, None),
    ],
)
def test_spacing(tmp_path: Path, tags: dict[str, Any], expected: tuple[float, float] | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = dicom(tmp_path / "scan.dcm", RAMP, **tags)
    (scan,) = read_scans(path)
    assert scan.frame is None
    assert scan.spacing == (expected and pytest.approx(expected))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def test_compressed_dicom(tmp_path: Path) -> None:
    shape = {"Rows": 16, "Columns": 16, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    grays = [np.full((16, 16), value, np.uint8) for value in (20, 120, 220)]
    path = dicom(tmp_path / "j.dcm", [jpeg(gray) for gray in grays], uid.JPEGBaseline8Bit, NumberOfFrames=3, **shape)
    assert [round(scan.pixels.mean()) for scan in read_scans(path)] == [20, 120, 220]
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[..., 0] = 255
    shape |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    path = dicom(tmp_path / "c.dcm", [jpeg(colour)], uid.JPEGBaseline8Bit, **shape)
    assert np.abs(read_image(path).astype(int) - 76).max() <= 2
    dataset = pydicom.dcmread(dicom(tmp_path / "r.dcm", RAMP))
    dataset.compress(uid.RLELossless)
    dataset.save_as(tmp_path / "r.dcm")
    assert np.array_equal(read_image(tmp_path / "r.dcm"), RAMP)


def test_a_compressed_frame_larger_than_it_should_be_is_not_decoded(tmp_path: Path) -> None:
    frame = jpeg(np.zeros((16, 16), np.uint8))
    marker = frame.index(b"\xff\xc0")
    frame = frame[: marker + 5] + struct.pack(">HH", 60_000, 60_000) + frame[marker + 9 :]
    shape = {"Rows": 16, "Columns": 16, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    with pytest.raises(UnreadableImageError, match=r"corrupt or need another decoder, pip install .*exceeds limit"):
        read_image(dicom(tmp_path / "bomb.dcm", [frame], uid.JPEGBaseline8Bit, **shape))


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (uid.JPEGLSLossless, "JPEG-LS Lossless.* no installed decoder reads: pip install .*pylibjpeg.*python-gdcm"),
        (uid.MPEG4HP41, "MPEG-4.* is not read; store them uncompressed"),
        (uid.DeflatedExplicitVRLittleEndian, "Deflated.*; store it uncompressed"),
    ],
)
def test_pixels_that_nothing_decodes_name_their_transfer_syntax(tmp_path: Path, syntax: str, message: str) -> None:
    frames = RAMP if syntax == uid.DeflatedExplicitVRLittleEndian else [b"\xff\xd8\xff\xd9"]
    shape = {"Rows": 6, "Columns": 40, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    with pytest.raises(UnreadableImageError, match=message):
        read_image(dicom(tmp_path / "scan.dcm", frames, syntax, **shape))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelData": None, "Rows": None}, r"holds no pixels \(Ultrasound Image Storage\); expected an image"),
        ({"PixelData": None}, "cannot be decoded"),
        ({"Rows": 60_000, "Columns": 60_000}, "60000 x 60000 pixels; expected at most 50000000"),
        ({"Rows": 0}, "expected at least one pixel"),
        ({"NumberOfFrames": 2_000_000_000}, "cannot be decoded"),
        ({"PixelData": b"1234"}, "cannot be decoded"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV with 1 samples; expected RGB"),
        ({"BitsStored": 12}, "12 of 8 bits"),
        ({"RescaleSlope": "NaN", "RescaleIntercept": 0}, "not finite"),
    ],
)
def test_damaged_dicom_is_one_line(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = dicom(tmp_path / "scan.dcm", RAMP, **tags)
    with pytest.raises(UnreadableImageError, match=message) as caught:
        list(read_scans(path))
    assert "\n" not in str(caught.value)


def test_dicom_without_marker_is_read_where_that_is_sound(tmp_path: Path) -> None:
    for syntax, sound in ((uid.ImplicitVRLittleEndian, True), (uid.ExplicitVRLittleEndian, False)):
        dataset = pydicom.dcmread(dicom(tmp_path / "whole.dcm", RAMP, syntax))
        del dataset.file_meta
        path = tmp_path / "bare.dcm"
        dataset.save_as(path, implicit_vr=sound, little_endian=True, enforce_file_format=False)
        content = path.read_bytes()
        path.write_bytes(content[132:] if content[128:132] == b"DICM" else content)
        if sound:
            assert np.array_equal(read_image(path), RAMP)
        else:
            with pytest.raises(UnreadableImageError, match="not an image"):
                read_image(path)


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "scan.dcm", RAMP)
    for name in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnreadableImageError, match=r"pip install 'busi-lab\[dicom\]'"):
        read_image(path)
    assert np.array_equal(read_image(write(tmp_path / "scan.png", RAMP)), RAMP)


# ----------------------------------------------------------------------------------------------- fuzzing


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
    dataset = pydicom.dcmread(dicom(folder / "rle.dcm", noise(9, 11, 3)))
    dataset.compress(uid.RLELossless)
    dataset.save_as(folder / "rle.dcm")
    return {path.name: path.read_bytes() for path in [*paths, folder / "rle.dcm"]}


def read_or_refuse(path: Path) -> None:
    start = time.perf_counter()
    try:
        for scan in read_scans(path):
            assert scan.pixels.dtype == np.uint8 and scan.pixels.ndim == 2 and scan.pixels.size
    except UnreadableImageError as error:
        assert str(error) and str(error).isprintable()
    assert time.perf_counter() - start < 5


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=150, deadline=None, suppress_health_check=CHECKS)
@given(
    st.sampled_from(SUFFIXES), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"]), st.binary(max_size=400)
)
def test_random_bytes_are_read_or_refused(tmp_path: Path, ending: str, head: bytes, content: bytes) -> None:
    path = tmp_path / f"scan{ending}"
    path.write_bytes(head + content)
    read_or_refuse(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def flip(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]


def cut(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + content[at + value % 16 :]


def splice(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + content[at // 2 : at // 2 + value] + content[at:]


def truncate(content: bytes, at: int, value: int) -> bytes:
    return content[:at]


CHANGES: tuple[Callable[[bytes, int, int], bytes], ...] = (flip, cut, splice, truncate)


@settings(max_examples=400, deadline=None, suppress_health_check=CHECKS)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(sound)))
    content = sound[name]
    for _ in range(data.draw(st.integers(1, 4))):
        change = data.draw(st.sampled_from(CHANGES))
        if content:
            content = change(content, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255)))
    path = tmp_path / name
    path.write_bytes(content)
    read_or_refuse(path)
