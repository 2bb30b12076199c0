"""Corrected scans: what is kept of them, and that ``data=labels`` trains on it."""

import base64
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab.app.corrections import Corrections
from busi_lab.app.desk import UNKNOWN, Desk
from busi_lab.app.models import Model
from busi_lab.app.pictures import drawn_mask, png
from busi_lab.app.uploads import Upload
from busi_lab.app.visits import Visits
from busi_lab.classes import BUSI, Classes
from busi_lab.data.index import index_dataset
from busi_lab.data.scan import Scan
from busi_lab.errors import UserError
from tests.programs import call

SCAN = Scan(np.arange(80, dtype=np.uint8).reshape(8, 10), (0.1, 0.2), None)
MASK = np.zeros((8, 10), np.bool_)
MASK[2:5, 3:7] = True


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_scan_is_kept_with_its_class_and_its_mask(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "kept", BUSI)
    assert corrections.save(SCAN, "file-1", "malignant", MASK).scans == 1
    (row,) = rows(tmp_path / "kept")
    assert (row["label"], row["patient"], row["spacing"]) == ("malignant", "file-1", "0.1x0.2")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "kept" / row["file"])), SCAN.pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "kept" / row["mask_file"])), MASK)
    (case,) = index_dataset(tmp_path / "kept").cases
    assert (case.label, case.lesion_pixels, case.patient) == ("malignant", 12, "file-1")


def test_saved_again_it_replaces_its_row(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "kept", BUSI)
    corrections.save(SCAN, "file-1", "malignant", MASK)
    again = Corrections(tmp_path / "kept", BUSI)  # as after a new start
    saved = again.save(SCAN, "file-1", "normal", np.zeros_like(MASK))
    assert (saved.scans, saved.replaced) == (1, True)
    assert [(row["label"], row["mask_file"]) for row in rows(tmp_path / "kept")] == [("normal", "")]
    assert not list((tmp_path / "kept" / "masks").iterdir())


def test_contradictions_and_other_folders_are_refused(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "kept", BUSI)
    with pytest.raises(UserError, match="normal is the class without a lesion"):
        corrections.save(SCAN, "file-1", "normal", MASK)
    with pytest.raises(UserError, match="class 'cyst': expected benign"):
        corrections.save(SCAN, "file-1", "cyst", MASK)
    assert rows(tmp_path / "kept") == []
    with pytest.raises(UserError, match="holds scans of benign, malignant, normal, the models are of cyst, solid"):
        Corrections(tmp_path / "kept", Classes(("cyst", "solid")))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    with pytest.raises(UserError, match="expected a new or empty folder"):
        Corrections(tmp_path / "other", BUSI)
    (tmp_path / "other" / "labels.csv").write_text("file,label\n")
    with pytest.raises(UserError, match=r"expected labels\.csv with the columns file,label,mask_file"):
        Corrections(tmp_path / "other", BUSI)


def test_other_classes_are_written_down(tmp_path: Path) -> None:
    classes = Classes(("cyst", "solid", "healthy"), "solid", "healthy")
    Corrections(tmp_path / "kept", classes).save(SCAN, "file-1", "cyst", MASK)
    assert index_dataset(tmp_path / "kept").classes == classes


def test_a_drawing_becomes_a_mask_of_the_scan() -> None:
    layer = np.zeros((8, 10, 4), np.uint8)
    layer[MASK] = (86, 180, 233, 255)
    drawing = "data:image/png;base64," + base64.b64encode(png(Image.fromarray(layer))).decode()
    assert np.array_equal(drawn_mask(drawing, (8, 10)), MASK)
    for wrong in ("", "data:image/png;base64,QUJD", "file:///etc/passwd", drawing[:60]):
        with pytest.raises(UserError, match="the drawing is no mask of this scan"):
            drawn_mask(wrong, (8, 10))
    with pytest.raises(UserError, match="10 x 8 pixels"):
        drawn_mask(drawing, (9, 10))


def test_the_desk_keeps_what_was_drawn(
    models: list[Model], visits: Visits, opened: Callable[[str], Upload], tmp_path: Path
) -> None:
    desk = Desk(models, visits, Corrections(tmp_path / "kept", BUSI))
    upload = opened("benign")
    board, label = desk.drawing(upload, 0)
    assert label in BUSI.names
    drawing = board.rpartition('src="')[2].partition('"')[0]  # the mask, as the browser has it before anyone draws
    said = desk.save(upload, 0, "0.1", drawing, UNKNOWN)
    (row,) = rows(tmp_path / "kept")
    assert (row["label"], row["patient"], row["spacing"]) == ("", f"file-{upload.digest}", "0.1x0.1")
    assert "Saved: no class" in said
    with pytest.raises(UserError, match="--save DIR"):
        Desk(models, visits, None).save(upload, 0, "", drawing, UNKNOWN)


def test_a_run_trains_on_them(phantom_root: Path, tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "kept", BUSI)
    for case in index_dataset(phantom_root).cases:
        pixels = np.asarray(Image.open(phantom_root / case.image))
        mask = np.asarray(Image.open(phantom_root / case.masks[0])) > 0
        corrections.save(Scan(pixels, None, None), f"file-{case.case_id}", case.label, mask)
    run = tmp_path / "run"
    places = (f"data.root={tmp_path / 'kept'}", f"hydra.run.dir={run}", "logger=none", "data.image_size=32")
    assert call("train", "data=labels", "trainer=smoke", "split=holdout", "model=custom_cnn", *places) == 0
    assert (run / "summary.json").is_file()
