"""BUSI's layout as others write it: capitals, accents, formats, nesting, what is missing."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from busi_lab.data.index import check_dataset, index_dataset, inspect_dataset
from busi_lab.data.layout import absent_classes, list_files, resolve_root
from busi_lab.errors import UserError
from tests.data.image_files import noise, write
from tests.programs import call

NFC, NFD = (unicodedata.normalize(form, "tumör") for form in ("NFC", "NFD"))


def lesion(row: int = 2) -> Any:
    mask = np.zeros((12, 16), np.uint8)
    mask[row : row + 4, 3:9] = 255
    return mask


def put(root: Path, *names: str) -> Path:
    """Files of scans, and of masks of 24 pixels where the name says so."""
    for place, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, lesion(place % 8) if "_mask" in name.lower() else noise(12, 16))
    return root


def pairs(root: Path) -> dict[str, tuple[str, ...]]:
    """Case id -> files, of a sound folder."""
    files, defects = list_files(root)
    assert defects == []
    return {case.case_id: (case.image, *case.masks) for case in files}


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("x.PNG", ["x_mask.png"]),
        ("x.png", ["x_Mask.png"]),
        ("x.png", ["x_MASK.PNG", "x_Mask_1.png"]),
        ("X.png", ["x_mask.png"]),
        ("x.jpg", ["x_mask.png"]),
        ("x.JPEG", ["x_mask.bmp"]),
        ("x.tif", ["x_mask.TIFF"]),
        (f"{NFC}.png", [f"{NFD}_mask.png"]),
        (f"{NFD}.png", [f"{NFC}_mask.png", f"{NFD}_mask_1.png"]),
    ],
)
def test_names_are_paired_whatever_their_capitals_accents_and_formats(
    tmp_path: Path, image: str, masks: list[str]
) -> None:
    names = [f"benign/{name}" for name in (image, *masks)]
    (case_id, files), *_ = pairs(put(tmp_path, *names)).items()
    assert case_id == unicodedata.normalize("NFC", image.partition(".")[0])
    assert files == tuple(names)
    assert index_dataset(tmp_path).cases[0].lesion_pixels >= 24


def test_capitals_tell_images_apart_where_masks_do(tmp_path: Path) -> None:
    put(tmp_path, *(f"benign/{name}{end}.png" for name in "aA" for end in ("", "_mask")))
    assert pairs(tmp_path) == {n: (f"benign/{n}.png", f"benign/{n}_mask.png") for n in "Aa"}


@pytest.mark.parametrize(
    ("first", "second"),
    [("x.PNG", "x.png"), ("x.jpg", "x.png"), (f"{NFD}.png", f"{NFC}.png"), ("x_mask.png", "x_mask.tif")],
)
def test_two_files_of_one_name_are_a_defect_that_names_both(tmp_path: Path, first: str, second: str) -> None:
    put(tmp_path, f"benign/{first}", f"benign/{second}", "benign/x.png", "benign/x_mask.png", f"benign/{NFC}_mask.png")
    _, defects = check_dataset(tmp_path)
    both = [str(defect) for defect in defects if "keep one" in str(defect)]
    assert len(both) == 1
    assert f"benign/{second}: it and {first!a} are both the " in both[0]
    with pytest.raises(UserError, match=r"found|both|without"):
        index_dataset(tmp_path)


def test_class_folders_have_capitals_of_any_kind(tmp_path: Path) -> None:
    put(tmp_path, "Benign/x.png", "Benign/x_mask.png", "MALIGNANT/y.png", "MALIGNANT/y_mask.png", "normal/z.png")
    index = index_dataset(tmp_path.parent if len([*tmp_path.parent.iterdir()]) == 1 else tmp_path)
    assert index.counts == {"benign": 1, "malignant": 1, "normal": 1}
    assert index.cases[1].image == "MALIGNANT/y.png"
    put(tmp_path, "benign/v.png", "benign/v_mask.png")
    _, defects = check_dataset(tmp_path)
    assert [str(defect) for defect in defects] == [
        "benign: Benign and benign are both folders of this class; put their files into one"
    ]


def test_folders_of_macos_are_no_entries(tmp_path: Path) -> None:
    put(tmp_path / "set", "benign/x.png", "benign/x_mask.png", "normal/y.png")
    for folder in ("set/__MACOSX/benign", "set/benign/__MACOSX", "__MACOSX/benign", "__MACOSX/normal"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "._x.png").write_bytes(b"x")
    (tmp_path / "set/benign/._x.png").write_bytes(b"x")
    assert resolve_root(tmp_path) == tmp_path / "set"
    assert check_dataset(tmp_path)[1] == []


@pytest.mark.parametrize("nested", ["a", "a/b", "a/b/c"])
def test_archives_nest(tmp_path: Path, nested: str) -> None:
    put(tmp_path / nested, "benign/x.png", "malignant/y.png")
    (tmp_path / "a" / "notes").mkdir(parents=True, exist_ok=True)
    assert resolve_root(tmp_path) == tmp_path / nested


def test_no_dataset_is_guessed(tmp_path: Path) -> None:
    put(tmp_path, "a/b/normal/x.png")  # any folder may be called so
    with pytest.raises(UserError, match=r"found none; point data.root at the dataset"):
        resolve_root(tmp_path)
    put(tmp_path, *(f"a/{split}/{label}/x.png" for split in ("train", "test") for label in ("benign", "malignant")))
    with pytest.raises(UserError, match=r"found a/test, a/train; point data.root at the dataset"):
        resolve_root(tmp_path)
    put(tmp_path, "a/b/c/d/benign/x.png", "a/b/c/d/malignant/x.png")
    with pytest.raises(UserError, match="found a/test, a/train;"):
        resolve_root(tmp_path)


# --------------------------------------------------------------------------------------- what is missing


BOTH = ("benign/x.jpg", "malignant/y.jpg")


def test_a_dataset_without_masks_is_sound(tmp_path: Path) -> None:
    index, defects, notes = inspect_dataset(put(tmp_path, *BOTH, "normal/z.jpg"))
    assert defects == []
    assert [case.mask_known for case in index.cases] == [False, False, True]
    assert [note.message.partition(":")[0] for note in notes] == ["no image has a mask"]
    assert index_dataset(tmp_path) == index


def test_scans_without_a_lesion_need_no_masks(tmp_path: Path) -> None:
    put(tmp_path, *BOTH, "benign/x_mask.png", "malignant/y_mask.png", "normal/z.jpg")
    index, defects, notes = inspect_dataset(tmp_path)
    assert (defects, notes) == ([], [])
    assert [case.mask_known for case in index.cases] == [True] * 3


@pytest.mark.parametrize(
    ("extra", "missing"), [("benign/x_mask.png", "malignant/y"), ("malignant/y_mask.png", "benign/x")]
)
def test_some_missing_masks_are_an_accident(tmp_path: Path, extra: str, missing: str) -> None:
    _, defects = check_dataset(put(tmp_path, *BOTH, extra))
    expected = f"{missing}.jpg: mask is missing: expected {missing}_mask.png"
    assert [str(defect).partition(";")[0] for defect in defects] == [expected]


def test_a_class_without_a_folder_is_a_note(tmp_path: Path) -> None:
    put(tmp_path, *BOTH, "benign/x_mask.png", "malignant/y_mask.png")
    index, defects, notes = inspect_dataset(tmp_path)
    assert (defects, index.counts) == ([], {"benign": 1, "malignant": 1, "normal": 0})
    assert [str(note).partition(" ")[0] for note in notes] == ["normal:"]
    assert "data.classes=[benign,malignant] trains without it" in str(notes[0])
    assert absent_classes(tmp_path) == ("normal",)


def remove_masks(root: Path) -> None:
    for path in root.rglob("*_mask*"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            lambda root: shutil.rmtree(root / "normal"),
            (),
            "no folder of the class normal; set data.classes=[benign,mal",
        ),
        (remove_masks, ("task=segmentation", "model=mobilenet_unet"), "no scan with a lesion has a mask, which this"),
    ],
)
def test_training_says_what_it_lacks(
    phantom_copy: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    settings: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(phantom_copy)
    arguments = ("trainer=smoke", f"data.root={phantom_copy}", "logger=none", f"hydra.run.dir={tmp_path / 'run'}")
    assert call("train", *arguments, *settings) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()
