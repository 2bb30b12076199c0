"""Which pixels of a mask file are lesion, counted by hand, and what ``busi-data check`` says of suspicious ones."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from busi_lab import datasets
from busi_lab.data.cache import open_cache
from busi_lab.data.index import index_dataset, inspect_dataset, read_case
from busi_lab.data.masks import lesion_value_names, read_mask
from busi_lab.data.options import DatasetOptions
from busi_lab.errors import UserError
from tests.data.image_files import dicom, write

A, B = np.s_[5:15, 5:15], np.s_[20:30, 20:40]  # 100 and 200 pixels, apart from each other
SCENE = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)


def drawn(*areas: tuple[Any, Any], background: Any = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    """A mask of 60 x 80 with areas of some values, or colours, on a background."""
    colour = np.ndim(background) or any(np.ndim(value) for _, value in areas)
    mask = np.full((60, 80, 3) if colour else (60, 80), background, dtype)
    for area, value in areas:
        mask[area] = value
    return mask


def lesion_of(folder: Path, stored: Any, *values: str, name: str = "m.png", **options: Any) -> NDArray[np.bool_]:
    return read_mask(write(folder / name, stored, **options), values)


RED, BLUE, GREEN, MAROON = (255, 0, 0), (0, 0, 255), (0, 255, 0), (128, 0, 0)


def palette(*colours: tuple[int, int, int]) -> Image.Image:
    """``A`` is entry 1, ``B`` entry 2 of a palette."""
    image = Image.fromarray(drawn((A, 1), (B, 2)), "P")
    image.putpalette([part for colour in colours for part in colour])
    return image


@pytest.mark.parametrize(
    "stored",
    [
        drawn((A, 120), (B, 255)),
        drawn((A, 127), (B, 255)),
        drawn((A, 60), (B, 255)),
        drawn((A, 10), (B, 255)),  # also what is hardly to be seen
        drawn((A, 1), (B, 2)),
        drawn((A, 40), (B, 80)),
        drawn((A, 1), (B, 300), dtype=np.uint16),  # 1 is nothing at all in 8 bits
        drawn((A, 1), (B, 65535), dtype=np.uint16),
        drawn((A, BLUE), (B, RED)),
        drawn((A, BLUE), (B, (255, 255, 255))),
        drawn((A, MAROON), (B, GREEN)),
        drawn((A, RED), (B, BLUE), background=(255, 255, 255)),
        palette((0, 0, 0), BLUE, MAROON),
        palette((0, 0, 0), (0, 0, 40), (255, 255, 255)),
        palette((9, 9, 9), (9, 9, 9), (9, 9, 9)),
        np.dstack([drawn(background=(255, 0, 0)), drawn((A, 255), (B, 120))]),  # in the transparency alone
    ],
    ids=range(16),
)
def test_whatever_is_no_background_is_lesion(tmp_path: Path, stored: Any) -> None:
    lesion = lesion_of(tmp_path, stored)
    assert lesion.dtype == np.bool_
    assert (lesion[A].sum(), lesion[B].sum(), lesion.sum()) == (100, 200, 300)


@pytest.mark.parametrize("value", [40, 120])
def test_a_small_area_of_a_lower_value_apart_from_others_is_lesion(tmp_path: Path, value: int) -> None:
    dot = np.s_[40:42, 60:63]
    lesion = lesion_of(tmp_path, drawn((B, 255), (dot, value)))
    assert (lesion.sum(), lesion[dot].sum()) == (206, 6)


def test_nested_values_are_all_lesion(tmp_path: Path) -> None:
    mask = drawn((np.s_[10:40, 10:60], 120), (np.s_[20:30, 20:40], 255))
    assert lesion_of(tmp_path, mask).sum() == 30 * 50


def test_a_gray_background_is_no_lesion(tmp_path: Path) -> None:
    assert lesion_of(tmp_path, drawn((B, 255), background=60)).sum() == 200
    assert lesion_of(tmp_path, drawn((A, 150), (B, 255), background=60)).sum() == 300


@pytest.mark.parametrize("factor", [2, 4])
def test_soft_edges_stay_cut_at_half(tmp_path: Path, factor: int) -> None:
    """A circle that is drawn large and made small has edges of 3 or 15 intermediate values."""
    large = np.zeros((100 * factor, 100 * factor), np.uint8)
    cv2.circle(large, (50 * factor, 50 * factor), 30 * factor, 255, -1)
    soft = cv2.resize(large, (100, 100), interpolation=cv2.INTER_AREA)
    assert np.array_equal(lesion_of(tmp_path, soft), soft > 127)
    blurred = cv2.GaussianBlur(soft, (0, 0), 5)  # also edges of many pixels
    assert np.array_equal(lesion_of(tmp_path, blurred), blurred > blurred.max() / 2)


@pytest.mark.parametrize("quality", [75, 90])
def test_the_noise_of_jpeg_is_no_lesion(tmp_path: Path, quality: int) -> None:
    for value in (255, 120):
        mask = np.zeros((120, 160), np.uint8)
        cv2.ellipse(mask, (50, 60), (30, 18), 20, 0, 360, 255, -1)
        cv2.ellipse(mask, (120, 60), (25, 20), 0, 0, 360, value, -1)
        for stored in (mask, np.dstack([mask] * 3), np.dstack([mask, 0 * mask, 0 * mask])):
            lesion = lesion_of(tmp_path, stored, name="m.jpg", quality=quality)
            wrong = lesion != (mask > 0)
            edges = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
            assert not (wrong & ~edges).any() and wrong.sum() < 0.03 * (mask > 0).sum()


def test_files_of_one_value(tmp_path: Path) -> None:
    assert not lesion_of(tmp_path, drawn()).any()
    assert not lesion_of(tmp_path, drawn(background=(0, 0, 0))).any()
    assert lesion_of(tmp_path, drawn(background=255)).all()


def test_dicom_and_deep_files_hold_masks(tmp_path: Path) -> None:
    assert read_mask(dicom(tmp_path / "m.dcm", drawn((A, 255)))).sum() == 100
    for stored in (drawn((A, 0.4), (B, 1), dtype=np.float32), drawn((A, 3000), (B, 65535), dtype=np.uint16)):
        assert lesion_of(tmp_path, stored, name="m.tif").sum() == 300
    inverted = write(tmp_path / "m.tif", drawn((A, 65535 - 300), background=65535, dtype=np.uint16), tiffinfo={262: 0})
    assert read_mask(inverted).sum() == 100


# ----------------------------------------------------------------------------------------- lesion values


@pytest.mark.parametrize(
    ("stored", "values", "pixels"),
    [
        (drawn((A, 120), (B, 255)), ("120",), 100),
        (drawn((A, 120), (B, 255)), ("255",), 200),
        (drawn((A, 120), (B, 255)), ("120", "255"), 300),
        (drawn((A, 120), (B, 255)), ("0",), 60 * 80 - 300),
        (drawn((A, 120), (B, 255)), ("40",), 0),  # 120 is another level
        (drawn((A, 1), (B, 2)), ("2",), 200),
        (drawn((A, 1), (B, 300), dtype=np.uint16), ("1",), 100),
        (drawn((A, RED), (B, BLUE)), ("#0000ff",), 200),
        (drawn((A, RED), (B, BLUE)), ("#ff0000", "#0000ff"), 300),
        (drawn((A, RED), (B, (255, 255, 255))), ("255",), 200),
        (drawn((A, 120), (B, 255)), ("#0000ff", "#787878"), 100),
    ],
)
def test_values_can_be_chosen(tmp_path: Path, stored: Any, values: Sequence[str], pixels: int) -> None:
    assert lesion_of(tmp_path, stored, *values).sum() == pixels


def test_noise_belongs_to_the_chosen_value_that_is_next(tmp_path: Path) -> None:
    areas = np.s_[10:34, 10:34], np.s_[10:34, 44:70]
    mask = drawn((areas[0], 120), (areas[1], 255))
    for values, area in ((("120",), areas[0]), (("123",), areas[0]), (("250",), areas[1])):
        lesion = lesion_of(tmp_path, mask, *values, name="m.jpg", quality=75)
        inner = cv2.erode(lesion.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert lesion[area].mean() > 0.97 and not inner[~(mask == mask[area][0, 0])].any()


@pytest.mark.parametrize("value", ["", "red", "-1", "65536", "1.5", "#12345"])
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"data.lesion_values: .* is no value of a mask; expected gray values as 120"):
        lesion_value_names([120, value])
    assert lesion_value_names([7, "#0000FF", "012"]) == ("7", "#0000ff", "12")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One benign and one malignant scan, whose masks have a value each of 120 and 255."""
    for place, label in enumerate(("benign", "malignant")):
        (tmp_path / "set" / label).mkdir(parents=True)
        write(tmp_path / "set" / label / f"{label} (1).png", np.roll(SCENE, 7 * place, axis=0))
        mask = np.roll(drawn((A, 120), (B, 255)), place, axis=0)
        write(tmp_path / "set" / label / f"{label} (1)_mask.png", mask)
    return tmp_path / "set"


def test_the_choice_reaches_index_cache_and_originals(root: Path, tmp_path: Path) -> None:
    whole, chosen = index_dataset(root), index_dataset(root, options=DatasetOptions(lesion_values=("120",)))
    assert [case.lesion_pixels for case in (*whole.cases, *chosen.cases)] == [300, 300, 100, 100]
    assert whole.digest != chosen.digest
    chosen_or_not = [DatasetOptions(lesion_values=values) for values in ((), ("120",), (), ("120",))]
    caches = [open_cache(root, 32, tmp_path / "cache", options) for options in chosen_or_not]
    assert [cache.index for cache in caches] == [whole, chosen, whole, chosen]
    assert caches[0].mask(0).sum() > 2 * caches[1].mask(0).sum() > 0
    assert read_case(root, chosen.cases[0])[1].sum() == 100
    with pytest.raises(UserError, match=r"no mask file has a pixel of the lesion values 7, #0000ff; see which values"):
        index_dataset(root, options=DatasetOptions(lesion_values=("7", "#0000ff")))


# ------------------------------------------------------------------------------------------------- check


def found(root: Path, *values: str) -> tuple[list[str], list[str]]:
    """Defects and notes, but for that there is no class folder ``normal``."""
    _, defects, notes = inspect_dataset(root, DatasetOptions(lesion_values=values))
    return [str(defect) for defect in defects], [str(note) for note in notes if note.path != "normal"]


def test_several_values_are_a_note_of_what_is_taken(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "benign/benign (1)_mask.png: several values: 120 (100 pixels), 255 (200 pixels): "
    more = "; data.lesion_values chooses; so in 1 more file"
    assert found(root) == ([], [f"{note}all are taken as lesion{more}"])
    assert found(root, "255") == ([], [f"{note}255 taken as lesion{more}"])
    datasets.main(["check", str(root), "--lesion-values", "255"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [f"note: {note}255 taken as lesion{more}", "2 notes", "0 defects"]
    datasets.main(["index", str(root), "--lesion-values", "255"])
    assert [row.split(",")[6] for row in capsys.readouterr().out.splitlines()[1:]] == ["200", "200"]
    with pytest.raises(SystemExit):
        datasets.main(["check", str(root), "--lesion-values", "white"])
    assert "error: --lesion-values: 'white' is no value of a mask" in capsys.readouterr().err


def test_colours_are_named(root: Path) -> None:
    write(root / "benign/benign (1)_mask.png", drawn((A, BLUE), (B, RED), background=(255, 255, 255)))
    write(root / "malignant/malignant (1)_mask.png", drawn((A, 255)))
    values = "several values: #ff0000 (200 pixels), #0000ff (100 pixels): all are taken as lesion"
    assert found(root) == ([], [f"benign/benign (1)_mask.png: {values}; data.lesion_values chooses"])


def overlay(scan: NDArray[np.uint8], filled: bool) -> NDArray[np.uint8]:
    picture = cv2.cvtColor(scan, cv2.COLOR_GRAY2RGB)
    return cv2.circle(picture, (40, 30), 15, RED, -1 if filled else 2).astype(np.uint8)


def ring(width: int) -> NDArray[np.uint8]:
    return cv2.circle(np.zeros((60, 80), np.uint8), (40, 30), 22, 255, width).astype(np.uint8)


def as_jpeg(pixels: NDArray[np.uint8]) -> Image.Image:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return Image.open(stream)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (SCENE, "the mask is the scan itself"),
        (np.dstack([SCENE] * 3), "the mask is the scan itself"),
        (as_jpeg(SCENE), "the mask is the scan itself"),
        (overlay(SCENE, False), "the mask is the scan with something drawn on it"),
        (overlay(SCENE, True), "the mask is the scan with something drawn on it"),
        (drawn((B, 0), background=255), "the mask is inverted"),
        (as_jpeg(drawn((B, 0), background=255)), "the mask is inverted"),
        (ring(1), "the mask is an outline of"),
        (ring(2), "the mask is an outline of"),
    ],
    ids=range(9),
)
def test_what_is_no_mask_is_a_defect(root: Path, mask: Any, message: str) -> None:
    write(root / "benign/benign (1)_mask.png", mask)
    defects, notes = found(root)
    assert [defect.partition(":")[0] for defect in defects] == ["benign/benign (1)_mask.png"]
    assert message in defects[0]
    assert [note.partition(":")[0] for note in notes] == ["malignant/malignant (1)_mask.png"]


@pytest.mark.parametrize(
    "mask",
    [
        drawn((np.s_[:, :70], 255)),  # a lesion that three borders cut
        ring(9),  # a ring as thick as its hole
        as_jpeg(drawn((A, 255), (B, 255))),
        drawn((np.s_[10:50:2, 10:50], 255)),  # lines
    ],
    ids=range(4),
)
def test_odd_masks_that_are_sound_are_left_alone(root: Path, mask: Any) -> None:
    write(root / "benign/benign (1)_mask.png", mask)
    write(root / "malignant/malignant (1)_mask.png", drawn((A, 255)))
    assert found(root) == ([], [])


def test_one_mask_for_two_scans_is_a_note(root: Path) -> None:
    for label in ("benign", "malignant"):
        write(root / label / f"{label} (1)_mask.png", drawn((A, 255)))
    message = "malignant/malignant (1).png: the same mask as benign/benign (1).png, another scan"
    assert [note.partition(";")[0] for note in found(root)[1]] == [message]
    smooth = cv2.GaussianBlur(SCENE, (0, 0), 4)  # two copies of one scan share their mask rightly
    write(root / "benign/benign (1).png", smooth)
    write(root / "malignant/malignant (1).png", np.clip(smooth.astype(int) + 9, 0, 255).astype(np.uint8))
    assert found(root) == ([], [])


def test_a_picture_of_something_else_is_a_note(root: Path) -> None:
    write(root / "benign/benign (1)_mask.png", np.roll(SCENE, 30, axis=1))
    write(root / "malignant/malignant (1)_mask.png", drawn((A, 255)))
    assert [note.partition(" and ")[0] for note in found(root)[1]] == [
        "benign/benign (1)_mask.png: the mask has 256 gray levels"
    ]
