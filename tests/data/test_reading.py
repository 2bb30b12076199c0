import logging
import struct
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from pydicom import uid

from busi_lab.data.masks import read_mask
from busi_lab.data.reading import SUFFIXES, read_image, read_scans
from busi_lab.data.scan import UnreadableImageError
from tests.data.image_files import CHANGES, dicom, noise, seeds, write

pytestmark = pytest.mark.usefixtures("silent")

SQUARE = np.zeros((20, 30), np.uint8)
SQUARE[5:10, 5:15] = 255


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
        (bytes(128) + b"DICM", "holds no pixels; expected an image"),
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


# ----------------------------------------------------------------------------------------------- fuzzing


def read_or_refuse(path: Path) -> None:
    start = time.perf_counter()
    try:
        for scan in read_scans(path):
            assert scan.pixels.dtype == np.uint8 and scan.pixels.ndim == 2 and scan.pixels.size
    except UnreadableImageError as error:
        assert str(error) and str(error).isprintable()
        assert " at 0x" not in str(error)  # an address, another one in each call
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


def test_a_file_is_refused_in_the_same_words_whenever_it_is_read(tmp_path: Path) -> None:
    shape = {"Rows": 9, "Columns": 11, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    path = dicom(tmp_path / "scan.dcm", [b"no picture"], uid.JPEGBaseline8Bit, **shape)
    with pytest.raises(UnreadableImageError, match=r"pillow: cannot identify image file <_io\.BytesIO object>"):
        read_image(path)
