"""What is said of odd scans and contradictions, and what passes through from DICOM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from busi_lab.data.scan import Origin, Scan
from busi_lab.inference.measures import measure
from busi_lab.inference.notes import find_notes
from busi_lab.predict import load
from busi_lab.summary import DataRecord
from tests.data.image_files import dicom, noise, region
from tests.inference.small_runs import Cli, make_classifier, make_segmenter, save_run, scan

SPECKLE = noise(40, 50)


def notes(pixels: Any = SPECKLE, modality: str | None = None) -> tuple[str, ...]:
    return find_notes(Scan(pixels, None, None, (), Origin(modality)), None, None, None)


@pytest.mark.parametrize(("modality", "odd"), [("US", False), (None, False), ("IVUS", False), ("MG", True)])
def test_another_modality(modality: str | None, odd: bool) -> None:
    assert notes(modality=modality) == ((f"the modality is {modality}, expected US",) if odd else ())


def disc(levels: tuple[int, int]) -> Any:
    pixels = np.full((40, 50), levels[0], np.uint8)
    pixels[10:20, 10:20] = levels[1]
    return pixels


def test_scans_that_look_like_masks() -> None:
    jpeg = disc((0, 255))
    jpeg[9, 10:14] = 7  # ringing, and a few soft pixels
    jpeg[0, 0] = 3
    for pixels in (disc((0, 255)), disc((0, 1)), jpeg):
        assert notes(pixels) == ("the scan has two gray levels, as a mask",)
    half = disc((0, 255))
    half[:, 25:] = SPECKLE[:, 25:]
    assert notes(half) == ()


def test_hardly_any_contrast() -> None:
    words = "the scan has hardly any contrast: 98 % of its gray levels are from {} to {} of 255"
    assert notes(np.full((40, 50), 7, np.uint8)) == (words.format(7, 7),)
    assert notes((100 + SPECKLE % 10).astype(np.uint8)) == (words.format(100, 109),)
    assert notes((100 + SPECKLE % 40).astype(np.uint8)) == ()


@pytest.mark.parametrize(
    ("label", "side", "spacing", "expected"),
    [
        ("normal", 10, (0.75, 0.75), "normal, beside a lesion of 56 mm²"),
        ("normal", 10, (0.1, 0.1), None),  # 1 mm²
        ("normal", 10, None, "normal, beside a lesion of 100 pixels"),
        ("normal", 1, None, None),
        ("normal", 0, None, None),
        ("benign", 0, None, "benign, but no lesion was found"),
        ("benign", 10, None, None),
    ],
)
def test_class_and_mask_that_contradict_each_other(
    label: str, side: int, spacing: tuple[float, float] | None, expected: str | None
) -> None:
    mask = np.zeros((40, 50), bool)
    mask[:side, :side] = True
    lesions = measure(mask, spacing)
    found = find_notes(Scan(SPECKLE, spacing, None), label, lesions, "normal")
    assert found == ((expected,) if expected else ())
    assert find_notes(Scan(SPECKLE, spacing, None), label, lesions, None) == ()
    assert find_notes(Scan(SPECKLE, spacing, None), label, None, "normal") == ()


def test_notes_and_origins_are_written_and_reports_are_left_out(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    scan(folder / "plain.png", 40, 50)
    frames = np.stack([SPECKLE, SPECKLE])
    more = {"NumberOfFrames": 2, "PixelData": frames.tobytes(), "FrameTime": 40, "BurnedInAnnotation": "NO"}
    calibrated = {"SequenceOfUltrasoundRegions": [region(-0.02, 0.02)]}
    dicom(folder / "cine.dcm", SPECKLE, Modality="MG", **more, **calibrated)
    nothing = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel"))
    kind = {"SOPClassUID": uid.MediaStorageDirectoryStorage, "PhotometricInterpretation": None, "PixelData": None}
    dicom(folder / "DICOMDIR", SPECKLE, **nothing, **kind)
    (folder / "volume.nii.gz").write_bytes(b"")
    first = runs / "constant/first"
    called = cli(folder, "--classifier", first, "--segmenter", runs / "none", "--spacing", "0.1x0.2")
    assert called.code == 0
    assert [line["spacing_mm"] for line in called.lines] == [pytest.approx([0.2, 0.2])] * 2 + [[0.1, 0.2]]
    assert [line["notes"] for line in called.lines] == [
        *[["the modality is MG, expected US", "benign, but no lesion was found"]] * 2,
        ["benign, but no lesion was found"],
    ]
    names = ("modality", "sop_instance_uid", "frame_time_ms", "burned_in_annotation")
    assert [[line[name] for name in names] for line in called.lines[1:]] == [["MG", "1.2.3", 40, "NO"], [None] * 4]
    row = called.table()[1]
    assert row["notes"] == "the modality is MG, expected US; benign, but no lesion was found"
    assert [row[name] for name in names] == ["MG", "1.2.3", "40.0", "NO"]
    assert len(called.table()) == 3
    said = [line.replace(f"{folder}/", "") for line in called.errors if "Grad" not in line]
    assert "left out: 1 file of another kind (volume.nii.gz: the file is NIfTI" in said[-5]
    assert said[-4:] == [
        "left out: DICOMDIR: the DICOM file holds no pixels (Media Storage Directory Storage)",
        "note: cine.dcm: the modality is MG, expected US",
        "note: cine.dcm: benign, but no lesion was found",
        "note: plain.png: benign, but no lesion was found",
    ]


def test_runs_that_have_learnt_from_phantoms_alone_say_so(cli: Cli, runs: Path, tmp_path: Path) -> None:
    phantoms = save_run(tmp_path / "phantoms", make_classifier(), data=DataRecord("busi", synthetic=True))
    older = save_run(tmp_path / "older", make_segmenter(lesion=True), data=DataRecord("busi", "/data/phantoms"))
    path = scan(tmp_path / "scans/one.png", 40, 50)
    scan(tmp_path / "scans/two.png", 40, 50)
    alone = "this run has learnt from phantoms alone: its answer says nothing about a patient"
    called = cli(path.parent, "--run", phantoms)
    assert [line["notes"] for line in called.lines] == [[alone]] * 2
    assert [row["notes"] for row in called.table()] == [alone] * 2
    assert called.errors[-1] == f"note: {alone}" and sum(alone in line for line in called.errors) == 1
    assert [run["of_phantoms"] for run in called.lines[0]["runs"]] == [True]
    mixed = load(classifier=[phantoms, runs / "random"], segmenter=older, device="cpu")
    (note,) = mixed.notes
    assert note == "2 of these 3 runs have learnt from phantoms alone: the answer says nothing about a patient"
    assert load(runs / "random", device="cpu").notes == ()


def test_a_joint_run_is_one_run(joint_run: Path) -> None:
    (note,) = load(joint_run, device="cpu").notes
    assert note.startswith("this run has learnt from phantoms alone")
