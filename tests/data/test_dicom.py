import re
import struct
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from busi_lab.data.cache import open_cache
from busi_lab.data.reading import is_scan_file, read_image, read_scans
from busi_lab.data.scan import NoPictureError, Origin, UnreadableImageError, spacing_of
from busi_lab.data.scan_dataset import ScanDataset
from busi_lab.inference.measures import measure
from tests.data.image_files import LOSSLESS, dicom, jpeg, noise, region, write

pytestmark = pytest.mark.usefixtures("silent")

LOSSLESS_COLOUR = bytes.fromhex(  # of three components, without a marker that says what they are
    "ffd8ffc30011080006000803521100471100421100ffc400160001010100000000000000000000000000040807ffda000c03"
    "5200470042000100009ff04c25ef7bdef7bdef7bdef7bdef7bdfbc6f1bc3def7bdef7bdef7bdef7bdef7bf78de37884e1384"
    "def7bdef7bdef7bdef7bdef9f27c9f1ef7bdef7bdef7bdef7bdef7bdfbc6f1bc3df09c2709bdef7bdef7bdef7bdef7cf93e4"
    "f8f7bdef7bdef7bdef7bdef7bdefffd9"
)
RAMP = np.arange(6 * 40, dtype=np.uint8).reshape(6, 40)


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
        ({"SequenceOfUltrasoundRegions": [region(-0.03, 0.04)]}, (0.3, 0.4)),
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
        (uid.HTJ2KLossless, "High-Throughput JPEG 2000.* no installed decoder reads: pip install 'busi-lab.dicom.'"),
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


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("name", ["bare.dcm", "bare", "1.2.840.1"])
def test_dicom_without_preamble_is_read(tmp_path: Path, syntax: str, meta: bool, name: str) -> None:
    whole = dicom(tmp_path / "whole.dcm", RAMP, syntax)
    content = whole.read_bytes()[132:]
    if not meta:
        content = content[12 + content[8] + 256 * content[9] :]  # the length of group 2 stands in its first element
    path = tmp_path / name
    path.write_bytes(content)
    assert is_scan_file(path) or (syntax == uid.ExplicitVRBigEndian and not meta)
    if name == "bare.dcm" or meta or syntax != uid.ExplicitVRBigEndian:
        assert np.array_equal(read_image(path), RAMP)


def test_dicom_that_is_written_otherwise_than_it_declares_is_read_whole(tmp_path: Path) -> None:
    path, frames = tmp_path / "scan.dcm", {"NumberOfFrames": 2, "PixelData": RAMP.tobytes() * 2}
    syntaxes = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
    explicit, implicit = (dicom(path, RAMP, syntax, **frames).read_bytes() for syntax in syntaxes)
    begin = [content.index(b"\x08\x00\x16\x00") for content in (explicit, implicit)]
    path.write_bytes(explicit[: begin[0]] + implicit[begin[1] :])
    read = [scan.pixels for scan in read_scans(path)]
    assert len(read) == 2 and np.array_equal(read[1], RAMP)


def test_dicom_that_does_not_name_its_transfer_syntax_is_read(tmp_path: Path) -> None:
    content = dicom(tmp_path / "whole.dcm", RAMP).read_bytes()
    path = tmp_path / "scan.dcm"
    path.write_bytes(content[:132] + content[132 + 12 + content[140] + 256 * content[141] :])
    assert np.array_equal(read_image(path), RAMP)


@pytest.mark.parametrize("kind", [uid.BasicTextSRStorage, uid.EncapsulatedPDFStorage, uid.MediaStorageDirectoryStorage])
def test_dicom_of_a_kind_without_pixels_is_no_failure(tmp_path: Path, kind: str) -> None:
    nothing = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation"))
    tags = {**nothing, "BitsStored": None, "PixelData": None, "SOPClassUID": kind}
    path = dicom(tmp_path / "report.dcm", RAMP, **tags)
    with pytest.raises(NoPictureError, match=re.escape(f"holds no pixels ({uid.UID(kind).name})")):
        read_image(path)
    path = dicom(tmp_path / "cut.dcm", RAMP, **{**tags, "SOPClassUID": uid.UltrasoundImageStorage})
    with pytest.raises(UnreadableImageError, match="expected an image") as caught:
        read_image(path)
    assert not isinstance(caught.value, NoPictureError)


@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        ([0, 100, 255], {}, [0, 100, 255]),
        ([0, 512, 1023], {}, [0, 128, 255]),
        ([0, 2048, 4095], {}, [0, 128, 255]),
        ([0, 100, 4096], {}, [0, 2, 64]),  # of 14 bits
        ([0, 32768, 65535], {}, [0, 128, 255]),
        ([0, 100, 255], {"BitsStored": 12}, [0, 100, 255]),
        ([0, 100, 255], {"PhotometricInterpretation": "MONOCHROME1"}, [255, 155, 0]),
        ([0, 512, 1023], {"RescaleSlope": 2, "RescaleIntercept": -1000}, [0, 128, 255]),
        ([0, 512, 1023], {"RescaleSlope": -1, "RescaleIntercept": 0}, [255, 127, 0]),
        ([-128, 0, 127], {"PixelRepresentation": 1}, [0, 128, 255]),
        ([0, 100, 255], {"PixelRepresentation": 1}, [0, 100, 255]),
        ([-1, 0, 128], {"PixelRepresentation": 1}, [127, 128, 160]),  # of 10 bits: -512 to 511
    ],
)
def test_deep_dicom_without_window_takes_the_smallest_range(
    tmp_path: Path, values: list[int], tags: dict[str, Any], expected: list[int]
) -> None:
    stored = np.array([values]).astype(np.uint16)
    assert read_image(dicom(tmp_path / "scan.dcm", stored, **tags)).tolist() == [expected]


def test_frames_of_deep_dicom_share_their_range(tmp_path: Path) -> None:
    frames = np.array([[[0, 100]], [[0, 1023]]], np.uint16)
    path = dicom(tmp_path / "cine.dcm", frames[0], NumberOfFrames=2, PixelData=frames.tobytes())
    assert [scan.pixels.tolist() for scan in read_scans(path)] == [[[0, 25]], [[0, 255]]]


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLossless])
def test_jpeg_lossless(tmp_path: Path, syntax: str) -> None:
    shape = {"Rows": 6, "Columns": 8, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    path = dicom(tmp_path / "scan.dcm", [LOSSLESS] * 2, syntax, NumberOfFrames=2, **shape)
    frames = [scan.pixels for scan in read_scans(path)]
    assert len(frames) == 2
    assert np.array_equal(frames[1], (np.arange(48).reshape(6, 8) * 5 % 251).astype(np.uint8))
    damaged = LOSSLESS[:40] + b"\xff\xd9"
    with pytest.raises(UnreadableImageError, match="corrupt or need another decoder"):
        read_image(dicom(tmp_path / "cut.dcm", [damaged], syntax, **shape))
    deep = dicom(tmp_path / "deep.dcm", [LOSSLESS], syntax, **shape, BitsAllocated=16, BitsStored=12)
    with pytest.raises(UnreadableImageError, match=r"of more than 8 bits, which no installed decoder .*python-gdcm"):
        read_image(deep)


def test_jpeg_ls_is_read_with_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("jpeg_ls")
    frame = bytes.fromhex(  # the pixels of LOSSLESS, as CharLS writes them
        "ffd8fff7000b080006000801011100ffda00080101000000008a52fe97c00002191c9b18000026da4905d555c5955a157f80ffd9"
    )
    shape = {"Rows": 6, "Columns": 8, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    path = dicom(tmp_path / "scan.dcm", [frame], uid.JPEGLSLossless, **shape)
    assert np.array_equal(read_image(path), (np.arange(48).reshape(6, 8) * 5 % 251).astype(np.uint8))


@pytest.mark.parametrize("marker", ["", "ffee000e41646f626500640000000000", "ffee000e41646f626500640000000001"])
def test_jpeg_lossless_in_colour_keeps_its_components(tmp_path: Path, marker: str) -> None:
    frame = LOSSLESS_COLOUR[:2] + bytes.fromhex(marker) + LOSSLESS_COLOUR[2:]
    shape = {"Rows": 6, "Columns": 8, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    path = dicom(tmp_path / "scan.dcm", [frame], uid.JPEGLosslessSV1, PlanarConfiguration=0, **shape)
    colour = (np.arange(144).reshape(6, 8, 3) * 5 % 251).astype(np.uint8)
    assert np.array_equal(read_image(path), np.asarray(Image.fromarray(colour).convert("L")))


def test_a_spacing_counts_only_inside_its_region(tmp_path: Path) -> None:
    def place(item: Dataset, *corners: int) -> Dataset:
        names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        for name, value in zip(names, corners, strict=True):
            setattr(item, name, value)
        return item

    left, right = place(region(0.01, 0.01), 0, 0, 19, 5), place(region(-0.02, 0.02), 20, 0, 29, 5)
    (scan,) = read_scans(dicom(tmp_path / "scan.dcm", RAMP, SequenceOfUltrasoundRegions=[left, right]))
    assert scan.spacing is None

    def spacing(*columns: int) -> Any:
        mask = np.zeros((6, 40), bool)
        mask[2:4, slice(*columns)] = True
        return spacing_of(mask, scan.spacing, scan.regions)

    assert spacing(2, 20) == pytest.approx((0.1, 0.1))
    assert spacing(20, 30) == pytest.approx((0.2, 0.2))
    assert spacing(19, 21) is None  # in both
    assert spacing(29, 31) is None and spacing(35, 36) is None  # outside
    mask = np.zeros((6, 40), bool)
    mask[0:2, 0:10] = mask[4:6, 22:25] = mask[0, 39] = True
    assert [lesion.area_mm2 for lesion in measure(mask, scan.spacing, scan.regions)] == [
        pytest.approx(20 * 0.01),
        pytest.approx(6 * 0.04),
        None,
    ]


def test_a_scan_says_where_it_comes_from(tmp_path: Path) -> None:
    tags = {"Modality": "US", "BurnedInAnnotation": "YES", "FrameTime": 33.3}
    (scan,) = read_scans(dicom(tmp_path / "scan.dcm", RAMP, **tags))
    assert scan.origin == Origin("US", "1.2.3", 33.3, "YES")
    tags |= {"FrameTimeVector": [0, 40.0], "NumberOfFrames": 2, "PixelData": RAMP.tobytes() * 2}
    scans = list(read_scans(dicom(tmp_path / "scan.dcm", RAMP, **tags)))
    assert [scan.origin.frame_time_ms for scan in scans] == [0, 40]
    assert next(read_scans(write(tmp_path / "scan.png", RAMP))).origin == Origin()


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "scan.dcm", RAMP)
    for name in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnreadableImageError, match=r"pip install 'busi-lab\[dicom\]'"):
        read_image(path)
    assert np.array_equal(read_image(write(tmp_path / "scan.png", RAMP)), RAMP)


def test_spacing_and_size_reach_the_batch(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    dicom(tmp_path / "set/a.dcm", noise(40, 50), PixelSpacing=[0.3, 0.4])
    write(tmp_path / "set/b.png", noise(60, 40))
    (tmp_path / "set/labels.csv").write_text("file,label,mask_file\na.dcm,benign,\nb.png,benign,\n")
    for _ in range(2):  # decoded, then from the stored cache
        scans = ScanDataset(open_cache(tmp_path / "set", 32, tmp_path / "cache"), ["a", "b"])
        assert [scan["size"].tolist() for scan in (scans[0], scans[1])] == [[40, 50], [60, 40]]
        assert scans[0]["spacing"].tolist() == pytest.approx([0.3, 0.4])
        assert scans[1]["spacing"].isnan().all()
